"""Metrics of inference requests; each request has a `RequestRecord` of its own."""

import logging

from gateway.asgi import Scope
from gateway.errors.gateway_error import GatewayError
from gateway.identity.client import ClientIdentity
from gateway.metrics import (
    CACHED_TOKENS,
    COMPLETION_TOKENS,
    INTER_TOKEN,
    PREDICTED_CACHED_TOKENS,
    PROMPT_TOKENS,
)
from gateway.request.tenant import Tenant
from gateway.routing.decision import Decision
from gateway.serving.client_response import ClientResponse
from gateway.serving.request_record import (
    NOT_RECORDED,
    RequestRecord,
    RequestSinks,
    priority_label,
)
from gateway.serving.tracing import Trace, Tracer
from gateway.telemetry.update import Finished

logger = logging.getLogger(__name__)


def client_labels(tenant: Tenant, identity: ClientIdentity, *, is_batch: bool) -> tuple[str, str]:
    """The labels `tenant_class` and `priority` of a request."""
    unverified = "key" if tenant.key else "address"
    return (
        unverified if identity.is_open else "project",
        priority_label(is_batch=is_batch),
    )


class RequestMetrics:
    """Metrics of one router's requests; `tracer`: where they are traced."""

    def __init__(self, sinks: RequestSinks | None = None, tracer: Tracer | None = None) -> None:
        self._sinks = sinks or RequestSinks()
        self.recorder = self._sinks.recorder
        self.tracer = tracer

    def open(
        self, scope: Scope, response: ClientResponse, request_id: bytes, client: tuple[str, str]
    ) -> RequestRecord:
        """The record of a request; entered as a context, it ends with the request.

        `client`: its `client_labels`.
        """
        trace: Trace | None = None
        if self.tracer is not None:
            try:
                trace = self.tracer.begin(
                    scope["path"], scope["headers"], request_id, response.timing
                )
            except Exception:
                logger.exception(NOT_RECORDED)
        return RequestRecord(self._sinks, client, scope, response, trace)

    def record_refusal(self, scope: Scope, response: ClientResponse, error: GatewayError) -> None:
        """Record a request that is not let in, before anything of its body is read."""
        try:
            record = RequestRecord(self._sinks, ("", ""), scope, response, None)
            record.close_refused(error)
        except Exception:
            logger.exception(NOT_RECORDED)

    def record_outcome(self, decision: Decision, finished: Finished) -> None:
        """Count the tokens of a request whose outcome its engine has reported."""
        try:
            self._count_tokens(decision, finished)
            self._sinks.history.record_finished(decision, finished)
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
