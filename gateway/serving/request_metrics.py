"""Metrics of each inference request: its outcome, and the time that each step took."""

import asyncio
import logging
from types import TracebackType
from typing import Self

from gateway.asgi import Headers
from gateway.errors.gateway_error import GatewayError
from gateway.errors.limits import Overloaded, RateLimited
from gateway.errors.upstream import DeadlineExceeded
from gateway.identity.client import ANONYMOUS_IDENTITY, ClientIdentity
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
from gateway.request.tenant import Tenant
from gateway.routing.decision import Decision
from gateway.serving.body import ClientDisconnected
from gateway.serving.client_response import ClientResponse
from gateway.serving.fallback import FallbackChain
from gateway.serving.timing import ENGINE, QUEUE, ROUTE
from gateway.serving.tracing import SpanEnd, Trace, Tracer
from gateway.telemetry.update import Finished

ANSWERED = "answered"
CLIENT_CANCELLED = "client_cancelled"
FAILED = "failed"
LIMITED = "limited"
REFUSED = "refused"
SHED = "shed"
TIMEOUT = "timeout"
TRUNCATED = "truncated"
NOT_RECORDED = "metrics of a request could not be recorded"  # which must not concern the request

logger = logging.getLogger(__name__)


def client_labels(tenant: Tenant, identity: ClientIdentity, *, is_batch: bool) -> tuple[str, str]:
    """The labels `tenant_class` and `priority` of a request."""
    unverified = "key" if tenant.key else "address"
    return (
        unverified if identity.is_open else "project",
        priority_label(is_batch=is_batch),
    )


def priority_label(*, is_batch: bool) -> str:
    """The label `priority` of a request."""
    return "batch" if is_batch else "interactive"


class RequestMetrics:
    """Metrics of one router's requests; `tracer`: where they are traced."""

    def __init__(self, recorder: Recorder | None = None, tracer: Tracer | None = None) -> None:
        self.recorder = recorder or NullRecorder()
        self.tracer = tracer

    def open(
        self,
        route: str,
        headers: Headers,
        response: ClientResponse,
        request_id: bytes,
        client: tuple[str, str],
    ) -> "RequestRecord":
        """The record of a request; entered as a context, it ends with the request.

        `client`: its `client_labels`.
        """
        trace: Trace | None = None
        if self.tracer is not None:
            try:
                trace = self.tracer.begin(route, headers, request_id, response.timing)
            except Exception:
                logger.exception(NOT_RECORDED)
        return RequestRecord(self.recorder, (route, *client), headers, response, trace)

    def record_outcome(self, decision: Decision, finished: Finished) -> None:
        """Count the tokens of a request whose outcome its engine has reported."""
        try:
            self._count_tokens(decision, finished)
        except Exception:
            logger.exception(NOT_RECORDED)

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
    """Record of one request, as a context; `labels`: its route, tenant class and priority."""

    __slots__ = ("_chain", "_labels", "_recorder", "_response", "_trace", "headers")

    def __init__(
        self,
        recorder: Recorder,
        labels: tuple[str, ...],
        headers: Headers,
        response: ClientResponse,
        trace: Trace | None,
    ) -> None:
        self._recorder = recorder
        self._labels = labels
        self._response = response
        self._trace = trace
        self.headers = headers if trace is None else trace.propagated(headers)
        """Headers of the client; if the request is traced, with the trace's context for engines."""
        self._chain: FallbackChain | None = None

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
            logger.exception(NOT_RECORDED)

    def record_chain(self, chain: FallbackChain) -> None:
        """The request has been parsed, and `chain` is to answer it."""
        self._chain = chain
        # The body may ask for another tier than the headers, and the project may not have it.
        self._labels = (*self._labels[:-1], priority_label(is_batch=chain.is_batch))

    def _close(self, error: BaseException | None) -> None:
        chain = self._chain
        model = NO_MODEL if chain is None else chain.model
        failure = error if error is not None or chain is None else chain.failure
        outcome, status = self._outcome(failure)
        try:
            self._observe(model, outcome)
        finally:
            if self._trace is not None:
                requested = "" if chain is None else chain.requested_model
                identity = ANONYMOUS_IDENTITY if chain is None else chain.identity
                end = SpanEnd(
                    *(requested, model, outcome, status),
                    project=identity.project.id,
                    key=identity.key,
                )
                self._trace.end(end, self._response)

    def _observe(self, model: str, outcome: str) -> None:
        timing, recorder = self._response.timing, self._recorder
        recorder.count(REQUESTS, (model, *self._labels, outcome))
        labels = (model,)
        if timing.spent_s(ROUTE) or timing.spent_s(QUEUE):  # otherwise it was for no model
            recorder.observe(QUEUE_WAIT, labels, timing.spent_s(QUEUE))
        if timing.spent_s(ENGINE):
            recorder.observe(ROUTING, labels, timing.spent_s(ROUTE))
            recorder.observe(OVERHEAD, labels, timing.overhead_s())
        if outcome == ANSWERED:
            recorder.observe(E2E, labels, timing.now() - timing.began_s)
        if timing.first_event_s is not None:
            recorder.observe(TTFT, labels, timing.first_event_s - timing.began_s)

    def _outcome(self, failure: BaseException | None) -> tuple[str, int]:
        """Outcome of the request, and the status that its client got; 0 if it got none."""
        status = self._response.status
        match failure:
            case None:
                outcome = FAILED if status >= 500 else REFUSED if status >= 400 else ANSWERED
            case ClientDisconnected() | asyncio.CancelledError():  # the latter is Serve's way
                outcome = CLIENT_CANCELLED
            case DeadlineExceeded():
                outcome = TIMEOUT
            case Overloaded():
                outcome = SHED
            case RateLimited():
                outcome = LIMITED
            case GatewayError() if failure.status < 500:
                outcome = REFUSED
            case _:
                outcome = TRUNCATED if status else FAILED
        if not status and outcome != CLIENT_CANCELLED:
            status = failure.status if isinstance(failure, GatewayError) else 500
        return outcome, status
