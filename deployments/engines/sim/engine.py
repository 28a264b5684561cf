"""Simulated engine: OpenAI's chat and text completions without weights, timed by a model of one."""

import asyncio
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import msgspec

from deployments.engines.adapters import AdapterCache
from deployments.engines.asgi import (
    accept_lifespan,
    header,
    read_body,
    send_error,
    send_json,
    while_connected,
)
from deployments.engines.call import call_dispatch, current_usage
from deployments.engines.served_tier import tier_of_call
from deployments.engines.sim.core import Clock, GenerationJob, InstantCore, PacedCore
from deployments.engines.sim.faults import (
    FaultKind,
    InjectedFault,
    SimulatedFailure,
    TruncatedSend,
    apply_faulty_text,
    fault_for,
    wait_forever,
)
from deployments.engines.sim.loader import SimulatedLoader
from deployments.engines.sim.parameters import engine_facts, engine_profile
from deployments.engines.sim.requests import (
    ChatRequest,
    CompletionRequest,
    EngineRequest,
    ParsedRequest,
    ResponseInput,
    TokenizeRequest,
    parse_request,
)
from deployments.engines.sim.responses import (
    ChatFormatter,
    ResponseEncoder,
    ResponseFormatter,
    TextFormatter,
)
from deployments.engines.sim.sender import SIMULATED_HEADER, ChoiceJob, ResponseSender
from deployments.engines.sim.sequences import OutputSequence, RenderedPrompt
from deployments.engines.sim.usage_file import UsageFile
from deployments.serve_internals.uvicorn_server import RESET_CONNECTION
from gateway.asgi import Receive, Scope, Send
from gateway.config.sim import SimEntry
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import MethodNotAllowed, ModelNotFound, UnknownRoute
from gateway.identity.cache_scope import CacheSalts
from gateway.simulation.batching import BatchingReplica
from gateway.telemetry.dispatch import Dispatch


@dataclass(frozen=True, slots=True)
class SimulatedRoute:
    """Inference route: the type of its requests and the format of its responses."""

    request: type[EngineRequest]
    formatter: ResponseFormatter


@dataclass(frozen=True, slots=True)
class _SimulatedRequest:
    """A parsed request, and what came with it."""

    formatter: ResponseFormatter
    parsed: ParsedRequest
    dispatch: Dispatch | None
    scope: Scope


ROUTES: Mapping[str, SimulatedRoute] = {
    "/v1/chat/completions": SimulatedRoute(ChatRequest, ChatFormatter()),
    "/v1/completions": SimulatedRoute(CompletionRequest, TextFormatter()),
}
TOKENIZE = "/tokenize"
INPUT_TOKENS = "/v1/responses/input_tokens"


class SimulatedEngine:
    """Simulated replica of a model.

    `replica`: its name, which decides which requests get faults; a random one if not given.
    """

    def __init__(self, entry: SimEntry, clock: Clock | None = None, replica: str = "") -> None:
        self._name = entry.name
        self._replica = replica or uuid.uuid4().hex
        self._simulation = entry.simulation
        self._created = int(time.time())
        self._salts = CacheSalts(secrets.token_bytes(32))
        self._hanging = 0
        """Requests that hang."""
        self.facts = engine_facts(entry, (*ROUTES, TOKENIZE, INPUT_TOKENS))
        clock, profile = clock or Clock(), engine_profile(entry.simulation)
        batching = BatchingReplica(profile)
        self.tracker = EngineTracker(
            self.facts,
            clock.now,
            lambda: batching.waiting,
            lambda: batching.cache.free * profile.block_size,
        )
        """State of its requests, cache and adapters, for routers."""
        if entry.simulation.usage_folder:
            UsageFile(self.tracker.usage.log, entry.simulation.usage_folder)
        self._core = (
            InstantCore(profile, self.tracker)
            if entry.simulation.instant
            else PacedCore(batching, self.tracker, clock, entry.simulation.time_scale)
        )

        loader = SimulatedLoader(entry.simulation, clock)
        self._adapters = AdapterCache(
            self.facts.adapters,
            entry.loaded_adapters_limit,
            loader,
            self.tracker.record_adapters,
            clock.now,
        )

    async def check(self) -> None:
        """Raise the error that has ended the simulation, if any."""
        self._core.check()

    async def ping(self) -> None:
        """Return, unless a request makes the engine hang."""
        if self._hanging:
            await wait_forever()

    async def stop(self) -> None:
        """End the simulation, and all requests in it."""
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
            await send_error(send, error, [SIMULATED_HEADER])

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if route := ROUTES.get(path):
            _require("POST", method, path)
            await self._infer(route, scope, receive, send)
        elif path == TOKENIZE:
            _require("POST", method, path)
            await self._tokenize(scope, receive, send)
        elif path == INPUT_TOKENS:
            _require("POST", method, path)
            await self._count_input(scope, receive, send)
        elif path == "/v1/models":
            _require("GET", method, path)
            await send_json(send, 200, self._models(), [SIMULATED_HEADER])
        elif path == "/health":
            _require("GET", method, path)
            await send_json(send, 200, b"", [SIMULATED_HEADER])
        else:
            raise UnknownRoute(f"Unknown request URL: {method} {path}.")

    @classmethod
    async def start(cls, entry: SimEntry) -> Self:
        """Start an engine for an entry.

        Raises:
            SimulatedFailure: the entry's `start_error` says so.
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

    def _resolved_adapter(self, name: str, dispatch: Dispatch | None) -> str:
        """The adapter that answers a request for `name`; empty if the model itself does."""
        target = (dispatch.model if dispatch else "") or name
        if target == self._name:
            return ""
        if target not in self._adapters.names:
            raise ModelNotFound(name)
        return target

    async def _tokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        prompt = await self._only_prompt(TokenizeRequest, scope, receive)
        if prompt is None:
            return
        tokens = {
            "count": prompt.tokens,
            "max_model_len": self.facts.max_model_len,
            "tokens": prompt.ids,
            "token_strs": None,
        }
        await send_json(send, 200, msgspec.json.encode(tokens), [SIMULATED_HEADER])

    async def _count_input(self, scope: Scope, receive: Receive, send: Send) -> None:
        prompt = await self._only_prompt(ResponseInput, scope, receive)
        if prompt is not None:
            count = {"object": "response.input_tokens", "input_tokens": prompt.tokens}
            await send_json(send, 200, msgspec.json.encode(count), [SIMULATED_HEADER])

    async def _only_prompt(
        self, kind: type[EngineRequest], scope: Scope, receive: Receive
    ) -> RenderedPrompt | None:
        """The prompt of a request that is not answered; None if its client has left."""
        body = await read_body(receive)
        if body is None:
            return None
        dispatch = call_dispatch(scope)
        parsed = parse_request(body, kind, dispatch.answered_bytes if dispatch else 0)
        if parsed.model:
            self._resolved_adapter(parsed.model, dispatch)
        [prompt] = parsed.prompts
        return prompt

    async def _infer(
        self, route: SimulatedRoute, scope: Scope, receive: Receive, send: Send
    ) -> None:
        body = await read_body(receive)
        if body is None:
            return
        apply_faulty_text(self._simulation, body)
        dispatch = call_dispatch(scope)
        parsed = parse_request(body, route.request, dispatch.answered_bytes if dispatch else 0)
        if dispatch and dispatch.origin and (cache_scope := dispatch.origin.cache_scope):
            parsed = parsed.in_scope(cache_scope, self._salts)
        adapter = self._resolved_adapter(parsed.model, dispatch)
        if not adapter:
            await self._answer(
                _SimulatedRequest(route.formatter, parsed, dispatch, scope), receive, send
            )
            return
        async with self._adapters.using(adapter):
            request = _SimulatedRequest(
                route.formatter, parsed.for_adapter(adapter), dispatch, scope
            )
            await self._answer(request, receive, send)

    async def _answer(self, request: _SimulatedRequest, receive: Receive, send: Send) -> None:
        formatter, parsed, dispatch = request.formatter, request.parsed, request.dispatch
        sequences = parsed.sequences(self._simulation.output_tokens, self.facts.max_model_len)
        request_id = _request_id(request.scope)
        fault = fault_for(self._simulation, self._replica, request_id)
        if fault and fault.kind is FaultKind.ERROR:
            raise SimulatedFailure("This request failed because of `error_rate` (simulated).")
        if fault and fault.kind is FaultKind.HANG:
            await self._hang(sequences[0], dispatch, receive)
            return
        encoder = ResponseEncoder(
            formatter=formatter,
            id=formatter.id_prefix + request_id,
            created=int(time.time()),
            model=parsed.model,
            include_usage=parsed.include_usage,
            tier=tier_of_call({"service_tier": parsed.tier}),
        )
        sender = ResponseSender(
            self._core, self._submit(parsed, sequences, dispatch), parsed.n, encoder
        )
        if fault:
            send = _truncated(send, request.scope, fault, sender.messages(is_stream=parsed.stream))
        work = sender.stream(send) if parsed.stream else sender.send_whole(send)
        if self._simulation.instant and not fault:
            await work  # finished before a client could leave
            return
        try:
            await while_connected(receive, work)
        finally:
            sender.abort()

    async def _hang(
        self, sequence: OutputSequence, dispatch: Dispatch | None, receive: Receive
    ) -> None:
        tracked = self.tracker.record_arrival(
            dispatch, sequence.prompt.tokens, call=current_usage()
        )
        self._hanging += 1
        try:
            await while_connected(receive, wait_forever())
        finally:
            self._hanging -= 1
            self.tracker.record_finished(tracked, 0, is_aborted=True)

    def _submit(
        self, parsed: ParsedRequest, sequences: list[OutputSequence], dispatch: Dispatch | None
    ) -> list[ChoiceJob]:
        block_size = self._simulation.block_size
        blocks = [prompt.blocks(block_size) for prompt in parsed.prompts]
        priority = dispatch.priority if dispatch else 0
        usage = current_usage()
        jobs: list[ChoiceJob] = []
        for sequence in sequences:
            prompt_blocks = blocks[sequence.index // parsed.n]
            run = sequence.run(prompt_blocks, block_size, priority, is_further=bool(jobs))
            # The router's `Dispatch` describes the first prompt.
            tracked = self.tracker.record_arrival(
                None if jobs else dispatch,
                run.prompt_tokens,
                call=usage,
                is_same_prompt=bool(sequence.index % parsed.n),
            )
            jobs.append(ChoiceJob(sequence, GenerationJob(run, tracked, sequence.completions)))
            self._core.submit(jobs[-1].job)
        return jobs


def _require(wanted: str, method: str, path: str) -> None:
    if method != wanted:
        raise MethodNotAllowed(f"{path} takes {wanted}, not {method}.", wanted)


def _request_id(scope: Scope) -> str:
    given = header(scope, b"x-request-id")
    return uuid.uuid4().hex if given is None else str(given, "latin-1")


def _truncated(send: Send, scope: Scope, fault: InjectedFault, messages: int) -> Send:
    return TruncatedSend(
        send, scope["extensions"][RESET_CONNECTION]["now"], fault.whole_messages(messages)
    )
