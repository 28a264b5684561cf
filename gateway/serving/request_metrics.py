"""The account of each inference request: how it ended and what its time went into, as metrics."""

import asyncio
import logging
from types import TracebackType
from typing import Self

from gateway.asgi import Headers
from gateway.errors import DeadlineExceeded, GatewayError, Overloaded
from gateway.metrics import (
    CACHED_TOKENS,
    COMPLETION_TOKENS,
    E2E,
    INTER_TOKEN,
    NO_MODEL,
    OVERHEAD,
    PREDICTED_CACHED_TOKENS,
    PROMPT_TOKENS,
    QUEUE_WAIT,
    REQUESTS,
    ROUTING,
    TTFT,
    NullRecorder,
    Recorder,
)
from gateway.request.tenant import ANONYMOUS, Tenant
from gateway.routing.decision import Decision
from gateway.serving.body import ClientDisconnected
from gateway.serving.client_response import ClientResponse
from gateway.serving.fallback import FallbackChain
from gateway.serving.timing import ENGINE, QUEUE, ROUTE
from gateway.serving.tracing import End, Trace, Tracer
from gateway.telemetry import Finished

ANSWERED = "answered"
WRONG = "a request could not be accounted for"  # which is no matter of the request's own

logger = logging.getLogger(__name__)


class RequestMetrics:
    """Those of one router; `tracer`: where requests are traced."""

    def __init__(self, recorder: Recorder | None = None, tracer: Tracer | None = None) -> None:
        self.recorder = recorder or NullRecorder()
        self.tracer = tracer

    def open(
        self, route: str, headers: Headers, reply: ClientResponse, request_id: bytes
    ) -> "RequestRecord":
        """The account of a request; entered as a context, it ends with the request."""
        trace: Trace | None = None
        if self.tracer is not None:
            try:
                trace = self.tracer.begin(route, headers, request_id, reply.timing)
            except Exception:
                logger.exception(WRONG)
        return RequestRecord(self.recorder, route, headers, reply, trace)

    def note_finished(self, decision: Decision, finished: Finished) -> None:
        """Count the tokens of a request on which its engine has reported."""
        try:
            self._count_tokens(decision, finished)
        except Exception:
            logger.exception(WRONG)

    def _count_tokens(self, decision: Decision, finished: Finished) -> None:
        recorder, labels = self.recorder, (decision.adapter or decision.model,)
        recorder.count(PROMPT_TOKENS, labels, finished.prompt_tokens)
        recorder.count(CACHED_TOKENS, labels, finished.cached_tokens)
        recorder.count(PREDICTED_CACHED_TOKENS, labels, decision.cached_tokens)
        recorder.count(COMPLETION_TOKENS, labels, finished.completion_tokens)
        if finished.completion_tokens > 1 and decision.sequences == 1 and not finished.is_aborted:
            gaps = finished.completion_tokens - 1
            recorder.observe(INTER_TOKEN, labels, finished.decode_s / gaps)


class RequestRecord:
    """One request's."""

    __slots__ = (
        *("_recorder", "_reply", "_route", "_trace"),
        *("headers", "is_batch", "chain", "tenant"),
    )

    def __init__(
        self,
        recorder: Recorder,
        route: str,
        headers: Headers,
        reply: ClientResponse,
        trace: Trace | None,
    ) -> None:
        self._recorder = recorder
        self._route = route
        self._reply = reply
        self._trace = trace
        self.headers = headers if trace is None else trace.passed_on(headers)
        """The client's; where it is traced, engines are told of the trace."""
        self.tenant: Tenant = ANONYMOUS
        self.is_batch = False
        self.chain: FallbackChain | None = None
        """Its way to an answer, once it is understood."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._close(error)
        except Exception:
            logger.exception(WRONG)

    def _close(self, error: BaseException | None) -> None:
        chain = self.chain
        model = NO_MODEL if chain is None else chain.model
        told = error if error is not None or chain is None else chain.failure
        outcome, status = self._end_of(told)
        try:
            self._observe(model, outcome)
        finally:
            if self._trace is not None:
                asked = "" if chain is None else chain.asked
                self._trace.end(End(asked, model, outcome, status), self._reply)

    def _observe(self, model: str, outcome: str) -> None:
        timing, recorder = self._reply.timing, self._recorder
        tenant_class = "key" if self.tenant.key else "address"
        priority = "batch" if self.is_batch else "interactive"
        recorder.count(REQUESTS, (model, self._route, tenant_class, priority, outcome))
        labels = (model,)
        if timing.spent_s(ROUTE) or timing.spent_s(QUEUE):  # otherwise it was for no model
            recorder.observe(QUEUE_WAIT, labels, timing.spent_s(QUEUE))
        if timing.spent_s(ENGINE):
            recorder.observe(ROUTING, labels, timing.spent_s(ROUTE))
            recorder.observe(OVERHEAD, labels, timing.own_s())
        if outcome == ANSWERED:
            recorder.observe(E2E, labels, timing.now() - timing.began_s)
        if timing.first_s is not None:
            recorder.observe(TTFT, labels, timing.first_s - timing.began_s)

    def _end_of(self, told: BaseException | None) -> tuple[str, int]:
        """How it ended, and the status that its client was told; 0 where it was told none."""
        status = self._reply.status
        match told:
            case None:
                outcome = "failed" if status >= 500 else "refused" if status >= 400 else ANSWERED
            case ClientDisconnected() | asyncio.CancelledError():  # the latter is Serve's way
                outcome = "left"
            case DeadlineExceeded():
                outcome = "timeout"
            case Overloaded():
                outcome = "shed"
            case GatewayError() if told.status < 500:
                outcome = "refused"
            case _:
                outcome = "cut" if status else "failed"
        if not status and outcome != "left":
            status = told.status if isinstance(told, GatewayError) else 500
        return outcome, status
