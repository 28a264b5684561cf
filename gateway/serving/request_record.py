"""Record of one inference request: outcome and times, for metrics, traces and the request log."""

import asyncio
import datetime as dt
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from gateway.asgi import Scope
from gateway.errors.gateway_error import GatewayError
from gateway.errors.limits import Overloaded, RateLimited
from gateway.errors.upstream import DeadlineExceeded
from gateway.metrics import (
    E2E,
    NO_MODEL,
    OVERHEAD,
    QUEUE_WAIT,
    REQUESTS,
    ROUTING,
    TTFT,
    NullRecorder,
    Recorder,
)
from gateway.serving.body import ClientDisconnected
from gateway.serving.client_identity import address_of, identity_in, shown_address
from gateway.serving.client_response import ClientResponse
from gateway.serving.fallback import FallbackChain
from gateway.serving.request_history import RequestHistory
from gateway.serving.request_summary import SHOWN_MODEL, RequestSummary
from gateway.serving.timing import ENGINE, QUEUE, ROUTE
from gateway.serving.tracing import Trace

ANSWERED = "answered"
CLIENT_CANCELLED = "client_cancelled"
FAILED = "failed"
LIMITED = "limited"
REFUSED = "refused"
SHED = "shed"
TIMEOUT = "timeout"
TRUNCATED = "truncated"
REPORTED = frozenset({ANSWERED, CLIENT_CANCELLED, TIMEOUT, TRUNCATED})
"""Outcomes of requests on which an engine reports: it has worked on them."""
SHOWN_SO_FAR = (
    *("request_id", "client", "project", "key", "route", "priority", "requested_model"),
    *("model", "adapter", "replicas", "is_stream", "status", "queue_s", "ttft_s"),
    *("request_bytes", "response_bytes"),
)
"""Fields of a summary that are shown before the request has ended."""
NOT_RECORDED = "metrics of a request could not be recorded"  # which must not concern the request

logger = logging.getLogger(__name__)


def priority_label(*, is_batch: bool) -> str:
    """The label `priority` of a request."""
    return "batch" if is_batch else "interactive"


def peer_address(scope: Scope) -> str:
    """Address that a request came from, whatever its headers say."""
    return shown_address(address_of({}, scope, is_forwarded=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSinks:
    """Where the records of one router's requests go."""

    recorder: Recorder = field(default_factory=NullRecorder)
    history: RequestHistory = field(default_factory=RequestHistory)
    router: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Id of the router."""
    address_of: Callable[[Scope], str] = peer_address
    """Address of the client that has sent a request."""


class RequestRecord:
    """Record of one request, as a context; `labels`: its tenant class and priority."""

    __slots__ = (
        *("_chain", "_priority", "_response", "_scope", "_sinks", "_tenant_class", "_trace"),
        *("headers", "request_id"),
    )

    def __init__(
        self,
        sinks: RequestSinks,
        labels: tuple[str, str],
        scope: Scope,
        response: ClientResponse,
        trace: Trace | None,
    ) -> None:
        self._sinks = sinks
        self._tenant_class, self._priority = labels
        self._scope = scope
        self._response = response
        self._trace = trace
        headers = scope["headers"]
        self.headers = headers if trace is None else trace.propagated(headers)
        """Headers of the client; if the request is traced, with the trace's context for engines."""
        self.request_id = response.request_id.decode()
        self._chain: FallbackChain | None = None

    def __enter__(self) -> Self:
        self._sinks.history.record_arrived(self)
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
        finally:
            self._sinks.history.record_left(self)

    def record_chain(self, chain: FallbackChain) -> None:
        """The request has been parsed, and `chain` is to answer it."""
        self._chain = chain
        # The body may ask for another tier than the headers, and the project may not have it.
        self._priority = priority_label(is_batch=chain.is_batch)

    def progress(self) -> dict[str, object]:
        """What is known of the request so far, as JSON shows it."""
        model = NO_MODEL if self._chain is None else self._chain.model
        so_far = self._summary(model, "", self._response.status, None)
        shown = {name: getattr(so_far, name) for name in SHOWN_SO_FAR}
        return {**shown, "so_far_s": so_far.e2e_s}

    def close_refused(self, error: GatewayError) -> None:
        """End the record of a request that is not let in."""
        self._sinks.history.record_refused(self._summary(NO_MODEL, REFUSED, error.status, error))

    def _close(self, error: BaseException | None) -> None:
        chain = self._chain
        failure = error if error is not None or chain is None else chain.failure
        outcome, status = self._outcome(failure)
        model = NO_MODEL if chain is None else chain.model
        try:
            self._observe(model, outcome)
        finally:
            summary = self._summary(model, outcome, status, failure)
            request = None if chain is None else chain.request
            write = (
                None if self._trace is None else self._trace.end(summary, self._response, request)
            )
            decision = chain.decisions[-1] if chain is not None and chain.decisions else None
            is_reported = outcome in REPORTED
            self._sinks.history.record_ended(summary, decision if is_reported else None, write)

    def _summary(
        self, model: str, outcome: str, status: int, failure: BaseException | None
    ) -> RequestSummary:
        """The summary; `model`: the name of the model or adapter that was tried last."""
        chain, response, sinks = self._chain, self._response, self._sinks
        timing, identity = response.timing, identity_in(self._scope)
        adapter = requested = ""
        replicas: tuple[str, ...] = ()
        is_stream, request_bytes = False, 0
        if chain is not None:
            request = chain.request
            requested = request.head.model[:SHOWN_MODEL]
            is_stream, request_bytes = request.head.is_stream, len(request.body)
            if decisions := chain.decisions:
                replicas = tuple([decision.replica.id for decision in decisions])
                if decisions[-1].adapter == model:
                    model, adapter = decisions[-1].model, model
        return RequestSummary(
            time=dt.datetime.now(dt.UTC),
            request_id=self.request_id,
            router=sinks.router,
            client=sinks.address_of(self._scope),
            project=identity.project.id,
            key=identity.key,
            route=self._scope["path"],
            priority=self._priority,
            requested_model=requested,
            model="" if model == NO_MODEL else model,
            adapter=adapter,
            replica=replicas[-1] if replicas else "",
            attempts=len(replicas),
            replicas=replicas,
            is_stream=is_stream,
            status=status,
            outcome=outcome,
            error=failure.code if isinstance(failure, GatewayError) else "",
            queue_s=round(timing.spent_s(QUEUE), 6),
            ttft_s=self._ttft_s,
            e2e_s=round(timing.now() - timing.began_s, 6),
            request_bytes=request_bytes,
            response_bytes=response.body_bytes,
        )

    @property
    def _ttft_s(self) -> float | None:
        timing = self._response.timing
        first_s = timing.first_event_s
        return None if first_s is None else round(first_s - timing.began_s, 6)

    def _observe(self, model: str, outcome: str) -> None:
        timing, recorder = self._response.timing, self._sinks.recorder
        client = (self._tenant_class, self._priority)
        recorder.count(REQUESTS, (model, self._scope["path"], *client, outcome))
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
