"""A simulated engine without a server: requests to it, and a time that passes as the test says."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from deployments.engines.sim.core import Clock
from deployments.engines.sim.engine import SimulatedEngine
from deployments.serve_internals.uvicorn_server import RESET_CONNECTION
from gateway.asgi import Message
from gateway.config.sim import SimEntry, Simulation
from gateway.telemetry.dispatch import DISPATCH, Dispatch

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
PLAIN_STEPS = {"step_s": 1, "step_s_per_prefill_token": 0, "step_s_per_sequence": 0}
"""A step takes a second, whatever is in it."""


class FakeTime:
    """Time that passes only while everybody sleeps; a process may find itself woken late."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.asleep_until_s = 0.0
        """Nobody is woken before."""
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    @property
    def clock(self) -> Clock:
        """The clock an engine runs on."""
        return Clock(now=lambda: self.now_s, sleep=self._sleep)

    async def _sleep(self, delay_s: float) -> None:
        awake = asyncio.get_running_loop().create_future()
        until = self.now_s + max(0.0, delay_s)
        heapq.heappush(self._sleepers, (until, next(self._order), awake))
        await awake

    @property
    def sleepers(self) -> int:
        """How many wait for time to pass."""
        return sum(not awake.done() for _, _, awake in self._sleepers)

    async def pass_s(self, seconds: float) -> None:
        """Let some time pass."""
        await self.run_until(asyncio.ensure_future(self._sleep(seconds)).done)

    async def run_until(self, is_over: Callable[[], bool]) -> None:
        """Let time pass, sleeper by sleeper, until `is_over`."""
        while True:
            for _ in range(20):  # whoever can go on without time passing does
                await asyncio.sleep(0)
            if is_over():
                return
            until, _, awake = heapq.heappop(self._sleepers)
            self.now_s = max(until, self.asleep_until_s)
            if not awake.done():
                awake.set_result(None)


class Exchange:
    """One request to an engine's application, and what came back when."""

    def __init__(
        self,
        engine: SimulatedEngine,
        path: str,
        body: object = None,
        time: FakeTime | None = None,
        method: str = "POST",
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self.body = b""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.writes_s: list[float] = []
        self.is_broken_off = False
        self._time = time or FakeTime()
        self._left = asyncio.Event()
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self._incoming = [{"type": "http.request", "body": raw, "more_body": False}]
        scope = {
            "type": "http",
            "path": path,
            "method": method,
            "headers": list(headers),
            "extensions": {RESET_CONNECTION: {"now": self._break_off}},
        }
        self.task = asyncio.ensure_future(engine.app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._incoming:
            return self._incoming.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    def _break_off(self) -> None:
        self.is_broken_off = True
        self.leave()

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            return
        self.body += message["body"]
        if message["body"]:
            self.writes_s.append(round(self._time.now_s, 9))

    def leave(self) -> None:
        """Disconnect."""
        self._left.set()

    async def finish(self) -> "Exchange":
        """Let time pass until the response is complete."""
        await self._time.run_until(self.task.done)
        self.task.result()
        return self

    @property
    def json(self) -> dict[str, Any]:
        """The body, decoded."""
        return msgspec.json.decode(self.body, type=dict[str, Any])

    @property
    def error_code(self) -> str | None:
        """The code of an error in OpenAI's shape."""
        code: str | None = self.json["error"]["code"]
        return code

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The events of a stream, without the `[DONE]` that ends it."""
        *events, done, rest = self.body.split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        return [msgspec.json.decode(event.removeprefix(b"data: ")) for event in events]


def engine_with(time: FakeTime | None = None, **simulation: float) -> SimulatedEngine:
    """An engine of the model `m`; instant unless given a time to run in."""
    return replica_with("one", time, **simulation)


def replica_with(
    replica: str, time: FakeTime | None = None, **simulation: float | str
) -> SimulatedEngine:
    """The same of a name where faults are dealt out."""
    settings = Simulation.model_validate({"instant": time is None, **simulation})
    entry = SimEntry(name="m", engine="sim", simulation=settings)
    return SimulatedEngine(entry, time.clock if time else None, replica)


def chat(text: str = "Hello", **fields: object) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def completion(prompt: object, **fields: object) -> dict[str, Any]:
    """The body of a completion request."""
    return {"model": "m", "prompt": prompt, **fields}


def dispatched(number: int, **fields: Any) -> tuple[bytes, bytes]:
    """The header with which a router sends a request."""
    return DISPATCH, Dispatch(id=number, **fields).encode()
