"""A simulated engine: OpenAI's chat and text completions without weights, on a clock.

`python -m deployments.engines.sim --port 9000` runs one by itself.
"""

import argparse
import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import msgspec
import uvicorn

from deployments.engines.adapters import Adapters
from deployments.engines.asgi import (
    BREAK_OFF,
    accept_lifespan,
    dispatch_of,
    read_body,
    send_error,
    send_json,
    while_connected,
)
from deployments.engines.gate import Gate
from deployments.engines.server import server_config
from deployments.engines.sim_answer import MARK, Answer, Part
from deployments.engines.sim_core import Clock, InstantCore, Job, PacedCore
from deployments.engines.sim_faults import (
    BreakingSend,
    Fault,
    Kind,
    SimulatedFailure,
    fault_of,
    for_ever,
)
from deployments.engines.sim_replies import ChatStyle, Reply, Style, TextStyle
from deployments.engines.sim_requests import (
    ChatRequest,
    CompletionRequest,
    EngineRequest,
    Task,
    TokenizeRequest,
    parse,
)
from deployments.engines.sim_sequences import Sequence
from gateway.asgi import Receive, Scope, Send
from gateway.config.sim import SimEntry, Simulation
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.errors import GatewayError, MethodNotAllowed, ModelNotFound, UnknownRoute
from gateway.simulation.batching import BatchingReplica, EngineSpeeds
from gateway.telemetry import Dispatch, EngineFacts


@dataclass(frozen=True, slots=True)
class Route:
    """An inference route: what it takes and how it words its replies."""

    request: type[EngineRequest]
    style: Style


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, understood, and what came with it."""

    style: Style
    task: Task
    dispatch: Dispatch | None
    scope: Scope


ROUTES: Mapping[str, Route] = {
    "/v1/chat/completions": Route(ChatRequest, ChatStyle()),
    "/v1/completions": Route(CompletionRequest, TextStyle()),
}
TOKENIZE = "/tokenize"


class SimulatedEngine:
    """A replica of a model that is only simulated.

    `replica`: what it is called where faults are dealt out; a name of its own if not given.
    """

    def __init__(self, entry: SimEntry, clock: Clock | None = None, replica: str = "") -> None:
        self._name = entry.name
        self._replica = replica or uuid.uuid4().hex
        self._simulation = entry.simulation
        self._created = int(time.time())
        self.facts = _facts(entry)
        clock, estimates = clock or Clock(), _estimates(entry.simulation)
        batching = BatchingReplica(estimates)
        self.report = EngineTracker(
            self.facts,
            clock.now,
            lambda: batching.waiting,
            lambda: batching.cache.free * estimates.block_size,
        )
        """What its routers have to hear."""
        self._core = (
            InstantCore(estimates, self.report)
            if entry.simulation.instant
            else PacedCore(batching, self.report, clock, entry.simulation.time_scale)
        )

        loader = _Loader(entry.simulation, clock)
        self._adapters = Adapters(
            self.facts.adapters,
            entry.loaded_adapters_limit,
            loader,
            self.report.note_adapters,
            clock.now,
        )

    async def check(self) -> None:
        """Raise what has ended the simulation, which then answers nobody any more."""
        self._core.check()

    async def stop(self) -> None:
        """End the simulation, and all that runs in it."""
        await self._adapters.stop()
        await self._core.stop()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await accept_lifespan(receive, send)
            return
        try:
            await self._dispatch(scope, receive, send)
        except GatewayError as error:
            await send_error(send, error, [MARK])

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if route := ROUTES.get(path):
            _require("POST", method, path)
            await self._infer(route, scope, receive, send)
        elif path == TOKENIZE:
            _require("POST", method, path)
            await self._tokenize(scope, receive, send)
        elif path == "/v1/models":
            _require("GET", method, path)
            await send_json(send, 200, self._models(), [MARK])
        elif path == "/health":
            _require("GET", method, path)
            await send_json(send, 200, b"", [MARK])
        else:
            raise UnknownRoute(f"Unknown request URL: {method} {path}.")

    @classmethod
    async def start(cls, entry: SimEntry) -> Self:
        """Start one as an entry says.

        Raises:
            SimulatedFailure: its start is to fail.
        """
        simulation = entry.simulation
        await asyncio.sleep(simulation.start_s / simulation.time_scale)
        if simulation.start_error:
            raise SimulatedFailure(simulation.start_error)
        engine = cls(entry)
        await engine._adapters.load_first()
        return engine

    def _models(self) -> bytes:
        card = {
            "id": self._name,
            "object": "model",
            "created": self._created,
            "owned_by": "simulated",
            "max_model_len": self.facts.max_model_len,
        }
        adapters = [card | {"id": name, "parent": self._name} for name in self._adapters.names]
        return msgspec.json.encode({"object": "list", "data": [card, *adapters]})

    def _adapter(self, name: str, dispatch: Dispatch | None) -> str:
        """The adapter that answers a client who asks for `name`; empty if the model itself does."""
        target = (dispatch.model if dispatch else "") or name
        if target == self._name:
            return ""
        if target not in self._adapters.names:
            raise ModelNotFound(name)
        return target

    async def _tokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        if body is None:
            return
        dispatch = dispatch_of(scope)
        task = parse(body, TokenizeRequest, dispatch.answered_bytes if dispatch else 0)
        if task.model:
            self._adapter(task.model, dispatch)
        [prompt] = task.prompts
        tokens = {
            "count": prompt.tokens,
            "max_model_len": self.facts.max_model_len,
            "tokens": prompt.ids,
            "token_strs": None,
        }
        await send_json(send, 200, msgspec.json.encode(tokens), [MARK])

    async def _infer(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        if body is None:
            return
        dispatch = dispatch_of(scope)
        task = parse(body, route.request, dispatch.answered_bytes if dispatch else 0)
        adapter = self._adapter(task.model, dispatch)
        if not adapter:
            await self._answer(_Asked(route.style, task, dispatch, scope), receive, send)
            return
        async with self._adapters.using(adapter):
            asked = _Asked(route.style, task.apart(adapter), dispatch, scope)
            await self._answer(asked, receive, send)

    async def _answer(self, asked: _Asked, receive: Receive, send: Send) -> None:
        style, task, dispatch, scope = asked.style, asked.task, asked.dispatch, asked.scope
        sequences = task.sequences(self._simulation.output_tokens, self.facts.max_model_len)
        request_id = _request_id(scope)
        fault = fault_of(self._simulation, self._replica, request_id)
        if fault and fault.kind is Kind.ERROR:
            raise SimulatedFailure("This request failed, as `error_rate` has it (simulated).")
        if fault and fault.kind is Kind.HANG:
            await self._hang(sequences[0], dispatch, receive)
            return
        reply = Reply(
            style=style,
            id=style.id_prefix + request_id,
            created=int(time.time()),
            model=task.model,
            include_usage=task.include_usage,
        )
        answer = Answer(self._core, self._submit(task, sequences, dispatch), task.n, reply)
        if fault:
            send = _breaking(send, scope, fault, answer.messages(is_stream=task.stream))
        work = answer.stream(send) if task.stream else answer.send_whole(send)
        if self._simulation.instant and not fault:
            await work  # over before a client could leave
            return
        try:
            await while_connected(receive, work)
        finally:
            answer.abort()

    async def _hang(self, sequence: Sequence, dispatch: Dispatch | None, receive: Receive) -> None:
        tracked = self.report.arrive(dispatch, sequence.prompt.tokens)
        try:
            await while_connected(receive, for_ever())
        finally:
            self.report.finish(tracked, 0, is_aborted=True)

    def _submit(
        self, task: Task, sequences: list[Sequence], dispatch: Dispatch | None
    ) -> list[Part]:
        block_size = self._simulation.block_size
        blocks = [prompt.blocks(block_size) for prompt in task.prompts]
        priority = dispatch.priority if dispatch else 0
        parts: list[Part] = []
        for sequence in sequences:
            run = sequence.run(blocks[sequence.index // task.n], block_size, priority)
            # What the router says of the request counts once.
            tracked = self.report.arrive(None if parts else dispatch, run.prompt_tokens)
            parts.append(Part(sequence, Job(run, tracked, sequence.reply)))
            self._core.submit(parts[-1].job)
        return parts


def _estimates(simulation: Simulation) -> EngineSpeeds:
    return EngineSpeeds(
        kv_blocks=simulation.kv_tokens // simulation.block_size,
        block_size=simulation.block_size,
        max_running=simulation.max_sequences,
        step_tokens=simulation.step_tokens,
        step_s=simulation.step_s,
        step_s_per_prefill_token=simulation.step_s_per_prefill_token,
        step_s_per_sequence=simulation.step_s_per_sequence,
    )


class _Loader:
    """Loads adapters that are nothing but their names."""

    def __init__(self, simulation: Simulation, clock: Clock) -> None:
        self._load_s = simulation.adapter_load_s / simulation.time_scale
        self._is_instant = simulation.instant
        self._clock = clock

    async def fetch(self, name: str) -> None:
        """There are no files."""

    async def load(self, name: str) -> None:
        """Take the time that it takes."""
        if not self._is_instant:
            await self._clock.sleep(self._load_s)

    async def unload(self, name: str) -> None:
        """Take none."""


def _facts(entry: SimEntry) -> EngineFacts:
    simulation = entry.simulation
    whole_blocks = simulation.kv_tokens // simulation.block_size * simulation.block_size
    return EngineFacts(
        engine="sim",
        routes=(*ROUTES, TOKENIZE),
        kv_tokens=simulation.kv_tokens,
        block_size=simulation.block_size,
        max_sequences=simulation.max_sequences,
        # What is longer would wait for room in the cache for ever.
        max_model_len=min(simulation.max_model_len, whole_blocks),
        supports_priority=True,
        step_tokens=simulation.step_tokens,
        adapters=tuple(adapter.name for adapter in entry.adapters),
    )


def _require(wanted: str, method: str, path: str) -> None:
    if method != wanted:
        raise MethodNotAllowed(f"{path} takes {wanted}, not {method}.", wanted)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return str(value, "latin-1")
    return uuid.uuid4().hex


def _breaking(send: Send, scope: Scope, fault: Fault, messages: int) -> Send:
    return BreakingSend(send, scope["extensions"][BREAK_OFF]["now"], fault.messages(messages))


def main() -> None:
    """Run a simulated engine until it is interrupted."""
    parser = argparse.ArgumentParser(description="Run a simulated OpenAI-compatible engine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--model", default="sim", help="the model's name")
    parser.add_argument("--instant", action="store_true", help="answer at once")
    parser.add_argument(
        "--simulation",
        default=Simulation(),
        type=Simulation.model_validate_json,
        help='speeds and sizes, as in a model entry: {"step_s": 0.03, "kv_tokens": 32768}',
    )
    parser.add_argument("--key", default="none", help="the access key; `none`: no key is needed")
    args = parser.parse_args()
    simulation = args.simulation.model_copy(update={"instant": True} if args.instant else {})
    entry = SimEntry(name=args.model, engine="sim", simulation=simulation)
    engine = SimulatedEngine(entry)
    config = server_config(engine.app if args.key == "none" else Gate(engine.app, args.key))
    config.host, config.port = args.host, args.port
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
