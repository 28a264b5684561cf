"""One model's part in a request: admitted, sent, sent elsewhere where that fails, carried on.

Until a client has been sent any of its answer, a failed attempt is followed by another on another
replica, at most `RETRIES` times and within the model's budget. A stream that breaks later is
carried on by another replica where that is sound (`gateway.resume.resumption`). Where the model has
no replica left, the request waits for one as it would have at first. What cannot be mended is
raised.

A request may itself be what replicas fail at. So each has few attempts that bring its client
nothing new, and one under which two replicas have died gets no third.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec

from gateway import header_names
from gateway.admission.admissions import Admissions
from gateway.admission.cold_start import LOOK_S, ColdStarts
from gateway.admission.queued_request import AdmissionRequest
from gateway.asgi import Headers
from gateway.errors import GatewayError, ModelUnavailable, Reason, StreamLost, UpstreamFailed
from gateway.faults import Action, Faults
from gateway.request.inference_request import InferenceRequest
from gateway.resume.completion_params import Unresumable
from gateway.resume.resumption import Resumption, resumption
from gateway.routing.decision import Decision
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.schedulers import Schedulers
from gateway.routing.target import Target
from gateway.serving.failure_reporter import FailureReporter
from gateway.serving.response_writer import ResponseWriter
from gateway.serving.retry_budget import RetryBudget
from gateway.serving.timing import CONNECT, ENGINE, QUEUE, ROUTE
from gateway.telemetry import DISPATCH, Dispatch
from gateway.upstream.engine_call import TOKENIZE, EngineCall, EngineClient
from gateway.upstream.response import EngineResponse

RETRIES = 2
"""Attempts beside the first one, and beside each that has brought the client something new."""
RESUMES = 8
"""How often one stream is carried on."""
VICTIMS = 2
"""Replicas that may die under one request before it is taken to be the cause."""
FREE = frozenset({Reason.UNREACHABLE, Reason.DRAINING, Reason.STUCK})
"""Reasons of failures that no engine goes on working for: to try elsewhere multiplies nothing."""
RETRIED = frozenset({500, 502, 503, 504})
"""Statuses by which an engine says that the fault is its own; 501 is the client's."""


@dataclass(frozen=True, slots=True)
class RouterContext:
    """What all deliveries share."""

    relay: EngineClient
    schedulers: Schedulers
    admissions: Admissions
    cold_starts: ColdStarts
    faults: Faults = field(default_factory=Faults)
    budgets: Mapping[str, RetryBudget] = field(default_factory=lambda: defaultdict(RetryBudget))
    """By the model's name."""
    is_forwarded: bool = False
    """A proxy of ours names the client in `x-forwarded-for`."""


class Attempts:
    """Has one model answer an errand.

    `due_s`: when the answer must be there, by the event loop's clock. `patience_s`: how long it may
    wait for a replica, where that is more than its model's requests may.
    """

    def __init__(
        self,
        target: Target,
        context: RouterContext,
        writer: ResponseWriter,
        *,
        due_s: float | None = None,
        patience_s: float = 0.0,
    ) -> None:
        self._request = target.request
        self._target = target
        self._scheduler = context.schedulers.of(target.model)
        self._context = context
        self._writer = writer
        self._due_s = due_s
        self._patience_s = patience_s
        self._failures = FailureReporter(target, self._scheduler, context.faults)
        self._headers = writer.reply.headers
        self._timing = writer.reply.timing
        self._replica: Replica | None = None
        self._tried: set[str] = set()
        self._retries = self._resumes = self._victims = 0
        self._parts = 0
        """Those that the client had been sent at the last break."""

    async def run(self) -> None:
        """Answer.

        Raises:
            GatewayError: the model does not answer, or not to the end.
        """
        decision = await self._admitted()
        self._budget.earn()
        while not await self._succeeds(decision):
            decision = (
                self._scheduler.choose(self._target, self._tried)
                if self._writer.has_sent
                else await self._admitted()
            )

    def tell(self, error: GatewayError) -> None:
        """The client is told of the error that was the end of it: note what is to be noted."""
        self._failures.told(self._replica, error, is_cut=self._writer.has_sent)

    def pass_on(self, error: GatewayError) -> None:
        """Another model takes over because of the error: note that."""
        self._failures.passed_on(self._replica, error)

    async def _admitted(self) -> Decision:
        for _ in range(RESUMES):
            try:
                return await self._admit()
            except ModelUnavailable:
                # Its last replica has gone while the request was held: another one has to start.
                await self._start()
        return await self._admit()

    async def _admit(self) -> Decision:
        admission = self._context.admissions.of(self._target.model)
        if self._request.is_copy:
            return admission.admit_at_once(self._admission_request())
        with self._timing.step(ROUTE):
            return await admission.admit(self._admission_request())

    async def _start(self) -> None:
        model, request = self._target.model, self._request
        if request.is_copy or (self._writer.has_alternative and not self._writer.has_sent):
            model.check_available()
        with self._timing.step(QUEUE):
            await self._context.cold_starts.wait(model, request, self._due_s)
        self._patience_s = patience_s(request, model)

    def _admission_request(self) -> AdmissionRequest:
        now_s = asyncio.get_running_loop().time()
        return AdmissionRequest(
            self._target,
            self._tried,
            limit_s=None if self._due_s is None else self._due_s - now_s,
            patience_s=self._patience_s,
            held=partial(self._timing.step, QUEUE),
        )

    async def _succeeds(self, decision: Decision) -> bool:
        """Make an attempt; False if there is to be another."""
        try:
            await self._attempt(decision)
        except UpstreamFailed as error:
            self._tried.add(decision.replica.id)
            with self._timing.step(ENGINE):  # its last words
                has_died = await self._failures.blame(decision.replica, error)
            self._check(error, has_died=has_died)
            if has_died or error.reason in FREE:
                with self._timing.step(QUEUE):
                    await self._successor()
            return False
        return True

    async def _successor(self) -> None:
        """Wait for a replica that has not been tried, as long as a request may wait.

        Raises:
            ModelUnavailable: none has come.
        """
        model, loop = self._target.model, asyncio.get_running_loop()
        end_s = loop.time() + model.options.queue.max_wait_s
        while all(replica in self._tried for replica in model.replicas):
            if not model.replicas:
                await self._start()
            elif loop.time() >= end_s:
                message = f"The model `{model.name}` has lost its engine; another one has to start."
                raise ModelUnavailable(message, model.start_s)
            else:
                await asyncio.sleep(LOOK_S)

    async def _attempt(self, decision: Decision) -> None:
        request, writer, replica = self._request, self._writer, decision.replica
        target = self._target
        self._replica = replica
        sending = self._scheduler.sending(decision, target)
        with sending as dispatch:
            path, body = request.path, request.body
            if writer.has_sent:
                carrying = writer.carrying = await self._carry_on(replica)
                if carrying.body is None:
                    await writer.reply.finish(carrying.ending)
                    self._failures.mended()
                    return
                path, body = carrying.path, carrying.body
                dispatch = _carrying(dispatch, carrying.answered_bytes)  # noqa: PLW2901 - the same, for a part
            call = EngineCall(path, request.headers, body, request.request_id, _word(dispatch))
            response = await self._open(call, replica)
            try:
                is_fault = response.status in RETRIED
                if is_fault and (writer.has_sent or writer.has_alternative or self._can_retry):
                    raise _answered(response.status)
                self._tell(decision)
                self._failures.mended()
                await writer.pass_on(response)
            finally:
                response.close()
        if is_fault:
            await self._failures.blame(replica, _answered(response.status))
            self._failures.told(replica, _answered(response.status), is_cut=False)
        else:
            self._scheduler.replicas.record_success(replica)

    async def _open(self, call: EngineCall, replica: Replica) -> EngineResponse:
        with self._timing.step(ENGINE):
            response = await self._context.relay.open(call, replica)
        if response.connect_s:
            self._timing.split(ENGINE, CONNECT, response.connect_s)
        return response

    async def _carry_on(self, replica: Replica) -> Resumption:
        request, stream_log = self._request, self._writer.stream_log
        if stream_log is None:
            raise StreamLost("The engine broke off before its answer was complete.")
        alone = Dispatch(id=0, model=self._target.renamed)

        def tokenize(body: bytes, answered_bytes: int) -> Awaitable[list[int] | None]:
            word = _word(_carrying(alone, answered_bytes))
            call = EngineCall(TOKENIZE, request.headers, body, request.request_id, word)
            return self._context.relay.tokenize(call, replica)

        try:
            return await resumption(request.path, request.body, stream_log, tokenize)
        except Unresumable as error:
            raise StreamLost(f"The engine broke off before the end. {error}") from None

    @property
    def _budget(self) -> RetryBudget:
        return self._context.budgets[self._target.model.name]

    @property
    def _can_retry(self) -> bool:
        return self._retries < RETRIES and self._budget.is_left

    def _check(self, error: UpstreamFailed, *, has_died: bool) -> None:
        """Count one more attempt, or raise `error` if there is to be none."""
        writer = self._writer
        if writer.parts > self._parts:
            self._parts, self._retries, self._victims = writer.parts, 0, 0
        self._victims += has_died
        error.is_final = self._victims == VICTIMS
        is_last = self._retries == RETRIES or error.is_final
        if is_last or writer.is_committed:
            raise error
        if writer.has_sent:
            self._resumes += 1
            if writer.stream_log is None or self._resumes > RESUMES:
                raise error
        elif not (has_died or error.reason in FREE or self._budget.spend()):
            raise error
        self._retries += 1
        action = Action.RESUMED if writer.has_sent else Action.RETRIED
        self._failures.suffered(self._replica, error, action)

    def _tell(self, decision: Decision) -> None:
        headers = [
            *self._headers,
            (header_names.MODEL, self._target.header),
            (header_names.REPLICA, decision.replica.id.encode()),
            (header_names.CACHED_TOKENS, b"%d" % decision.cached_tokens),
        ]
        if self._retries:
            headers.append((header_names.RETRIES, b"%d" % self._retries))
        if self._request.is_explained:
            headers.append((header_names.DECISION, decision.encode()))
        self._writer.reply.headers = headers


def patience_s(request: InferenceRequest, model: ServedModel) -> float:
    """How long a request that its model had to start for may still wait."""
    now_s = asyncio.get_running_loop().time()
    return max(0.0, request.arrived_s + model.options.cold_start_timeout_s - now_s)


def _answered(status: int) -> UpstreamFailed:
    return UpstreamFailed(f"The engine answered {status}.", Reason.ANSWERED_5XX)


def _carrying(dispatch: Dispatch, answered_bytes: int) -> Dispatch:
    """A dispatch of which the engine learns nothing: its prompt is longer than the keys' own."""
    return msgspec.structs.replace(
        dispatch, answered_bytes=answered_bytes, prompt_bytes=0, reply_start=None
    )


def _word(dispatch: Dispatch) -> Headers:
    return [(DISPATCH, dispatch.encode())]
