"""A simulated engine: OpenAI's chat and text completions without weights, on a clock.

`python -m deployments.engines.sim --port 9000` runs one by itself.
"""

import argparse
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import uvicorn

from deployments.engines.asgi import (
    accept_lifespan,
    read_body,
    send_error,
    send_json,
    while_connected,
)
from deployments.engines.gate import Gate
from deployments.engines.server import server_config
from deployments.engines.sim_answer import MARK, Answer
from deployments.engines.sim_core import Clock, Core, InstantCore, PacedCore
from deployments.engines.sim_replies import (
    CachedTokens,
    ChatStyle,
    Reply,
    Style,
    TextStyle,
    Usage,
)
from deployments.engines.sim_requests import (
    ChatRequest,
    CompletionRequest,
    EngineRequest,
    Sequence,
    parse,
)
from gateway.errors import GatewayError, MethodNotAllowed, ModelNotFound, UnknownRoute
from gateway.registry import SimEntry, Simulation
from gateway.relay.asgi import Receive, Scope, Send
from gateway.telemetry import EngineFacts


@dataclass(frozen=True, slots=True)
class Route:
    """An inference route: what it takes and how it words its replies."""

    request: type[EngineRequest]
    style: Style


ROUTES: Mapping[str, Route] = {
    "/v1/chat/completions": Route(ChatRequest, ChatStyle()),
    "/v1/completions": Route(CompletionRequest, TextStyle()),
}


class SimulatedEngine:
    """A replica of a model that is only simulated."""

    def __init__(self, entry: SimEntry, clock: Clock | None = None) -> None:
        self._name = entry.name
        self._simulation = entry.simulation
        self._core = _core(entry.simulation, clock or Clock())
        self._created = int(time.time())
        self.facts = EngineFacts(
            engine="sim",
            routes=tuple(ROUTES),
            kv_tokens=entry.simulation.kv_tokens,
            block_size=entry.simulation.block_size,
            max_sequences=entry.simulation.max_sequences,
            max_model_len=entry.simulation.max_model_len,
        )

    async def check(self) -> None:
        """Be well: there is nothing that could break."""

    async def stop(self) -> None:
        """Hold nothing, release nothing: what runs ends with the requests it belongs to."""

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
        elif path == "/v1/models":
            _require("GET", method, path)
            await send_json(send, 200, self._models(), [MARK])
        elif path == "/health":
            _require("GET", method, path)
            await send_json(send, 200, b"", [MARK])
        else:
            raise UnknownRoute(f"Unknown request URL: {method} {path}.")

    def _models(self) -> bytes:
        card = {
            "id": self._name,
            "object": "model",
            "created": self._created,
            "owned_by": "simulated",
            "max_model_len": self._simulation.max_model_len,
        }
        return msgspec.json.encode({"object": "list", "data": [card]})

    async def _infer(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        if body is None:
            return
        task = parse(body, route.request)
        if task.model != self._name:
            raise ModelNotFound(task.model)
        limits = self._simulation
        sequences = task.sequences(limits.output_tokens, limits.max_model_len)
        reply = Reply(
            style=route.style,
            id=route.style.id_prefix + _request_id(scope),
            created=int(time.time()),
            model=self._name,
            include_usage=task.include_usage,
        )
        answer = Answer(self._core, sequences, reply, _usage(sequences, task.n))
        work = answer.stream(send) if task.stream else answer.send_whole(send)
        if limits.instant:
            await work  # over before a client could leave
        else:
            await while_connected(receive, work)


def _core(simulation: Simulation, clock: Clock) -> Core:
    if simulation.instant:
        return InstantCore()
    return PacedCore(
        simulation.max_sequences, simulation.prefill_tokens_per_s, simulation.decode_step_s, clock
    )


def _require(wanted: str, method: str, path: str) -> None:
    if method != wanted:
        raise MethodNotAllowed(f"{path} takes {wanted}, not {method}.", wanted)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return str(value, "latin-1")
    return uuid.uuid4().hex


def _usage(sequences: list[Sequence], n: int) -> Usage:
    # A prompt is read once, however many answers it has.
    prompt_tokens = sum(sequence.prompt_tokens for sequence in sequences[::n])
    completion_tokens = sum(sequence.output_tokens for sequence in sequences)
    return Usage(
        prompt_tokens, completion_tokens, prompt_tokens + completion_tokens, CachedTokens()
    )


def main() -> None:
    """Run a simulated engine until it is interrupted."""
    parser = argparse.ArgumentParser(description="Run a simulated OpenAI-compatible engine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--model", default="sim", help="the model's name")
    parser.add_argument("--instant", action="store_true", help="answer at once")
    parser.add_argument("--key", default="none", help="the access key; `none`: no key is needed")
    args = parser.parse_args()
    entry = SimEntry(name=args.model, engine="sim", simulation=Simulation(instant=args.instant))
    engine = SimulatedEngine(entry)
    config = server_config(engine.app if args.key == "none" else Gate(engine.app, args.key))
    config.host, config.port = args.host, args.port
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
