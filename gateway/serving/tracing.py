"""OpenTelemetry traces: a span for each request, and one below it for each of its steps.

On where OpenTelemetry's standard variables name an exporter (`OTEL_TRACES_EXPORTER`, or an
`OTEL_EXPORTER_OTLP_ENDPOINT`), which also name the service, the sampler and the endpoint. Spans
are written when a request has ended, from its `Timing`. Where tracing is off, nothing of
OpenTelemetry is imported.

Attributes are those of OpenTelemetry's conventions for HTTP and for generative AI, and `gateway.*`.
"""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway import header_names
from gateway.asgi import Headers
from gateway.errors.startup import ConfigError
from gateway.request.inference_request import InferenceRequest
from gateway.serving.client_response import ClientResponse
from gateway.serving.request_summary import RequestSummary
from gateway.serving.timing import ENGINE, Timing
from gateway.telemetry.update import Finished

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SCOPE = "ray-llm-gateway"
TRACE_HEADERS = (header_names.TRACEPARENT, header_names.TRACESTATE)
"""Headers that carry a trace's context."""
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
}
"""Names of routes in OpenTelemetry's conventions for generative AI."""
HEADER_PREFIX = b"x-gateway-"
TRACESTATE_VALUE = re.compile(rb"[\x20-\x7e\t]{0,512}")
FAILURES = frozenset({"failed", "truncated", "timeout"})
NS = 1_000_000_000
CLOSE_S = 5.0

_Value = str | bool | int | float

logger = logging.getLogger(__name__)


def tracer_of(environ: Mapping[str, str]) -> "Tracer | None":
    """The tracer that the environment asks for; None if it asks for none.

    Raises:
        ConfigError: it asks for an unknown exporter.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    wanted = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not wanted and any(environ.get(name) for name in ENDPOINTS):
        wanted = "otlp"
    if wanted in {"", "none"}:
        return None
    try:
        return _exporting(wanted, environ)
    except ImportError as error:
        raise ConfigError(
            f"OTEL_TRACES_EXPORTER: `{wanted}` needs the extra `tracing` ({error})"
        ) from None
    except ValueError as error:  # of a variable that OpenTelemetry reads by itself
        raise ConfigError(f"OpenTelemetry's variables: {error}") from None


def _exporting(wanted: str, environ: Mapping[str, str]) -> "Tracer":
    exporter = _exporter(wanted, environ)
    # A fifth of a second of imports, only where requests are traced.
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = environ.get("OTEL_SERVICE_NAME") or SCOPE
    resource = Resource.create({"service.name": name})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracer(provider)


def _exporter(wanted: str, environ: Mapping[str, str]) -> "SpanExporter":
    variable = next((name for name in PROTOCOLS if environ.get(name)), "")
    protocol = environ.get(variable, "http/protobuf")
    match wanted, protocol:
        case "console", _:
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

            return ConsoleSpanExporter()
        case "otlp", "grpc":
            from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc  # noqa: PLC0415

            return grpc.OTLPSpanExporter()
        case "otlp", "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # noqa: PLC0415

            return http.OTLPSpanExporter()
        case "otlp", _:
            raise ConfigError(f"{variable}: `{protocol}` is not grpc or http/protobuf")
    raise ConfigError(f"OTEL_TRACES_EXPORTER: `{wanted}` is not otlp, console or none")


class Tracer:
    """Makes a trace of every request that its provider samples."""

    def __init__(self, provider: "TracerProvider") -> None:
        # Only here, so that it costs nothing where nothing is traced.
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        self._provider = provider
        self.api = trace
        self.spans = provider.get_tracer(SCOPE)
        self.propagator = TraceContextTextMapPropagator()

    def begin(self, route: str, headers: Headers, request_id: bytes, timing: Timing) -> "Trace":
        """The trace of a request that has just arrived, and may belong to its client's."""
        return Trace(self, route, headers, request_id, timing)

    async def close(self) -> None:
        """Export the remaining spans, for at most `CLOSE_S` seconds."""
        # OpenTelemetry itself would wait half a minute; a daemon thread does not delay the exit.
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, CLOSE_S)
        if thread.is_alive():
            logger.warning("the last traces could not be exported within %g s", CLOSE_S)


class Trace:
    """Trace of one request."""

    def __init__(
        self, tracer: Tracer, route: str, headers: Headers, request_id: bytes, timing: Timing
    ) -> None:
        self._tracer = tracer
        self._zero_ns = time.time_ns() - int(timing.now() * NS)
        """Where `timing`'s clock began, since the epoch."""
        api = tracer.api
        self._span = tracer.spans.start_span(
            f"POST {route}",
            context=tracer.propagator.extract(_carrier(headers)),
            kind=api.SpanKind.SERVER,
            attributes={
                "http.request.method": "POST",
                "http.route": route,
                "gen_ai.operation.name": OPERATIONS.get(route, route),
                "gen_ai.provider.name": SCOPE,
                "gateway.request_id": request_id.decode(),
            },
            start_time=self._ns(timing.began_s),
        )
        self._below = api.set_span_in_context(self._span)
        if self._span.is_recording():
            timing.record_steps()

    def propagated(self, headers: Headers) -> Headers:
        """The request's headers for an engine, whose spans come below this request's."""
        carrier: dict[str, str] = {}
        self._tracer.propagator.inject(carrier, context=self._below)
        return untraced(headers) + [(n.encode(), v.encode()) for n, v in carrier.items()]

    def end(
        self, summary: RequestSummary, response: ClientResponse, request: InferenceRequest | None
    ) -> Callable[[Finished | None], None]:
        """Write the spans of a request that has ended, but for its own.

        Returns what writes that one, once the engine's report has come, or will not come.
        """
        ended_ns = self._ns(response.timing.now())
        if self._span.is_recording():
            self._write_steps(response.timing, ended_ns)
            self._span.set_attributes(_attributes(summary, response.headers, request))
            if summary.outcome in FAILURES:
                self._span.set_status(self._tracer.api.StatusCode.ERROR, summary.outcome)

        def write(finished: Finished | None) -> None:
            if finished is not None and self._span.is_recording():
                self._span.set_attributes(_usage(finished))
            self._span.end(ended_ns)

        return write

    def _write_steps(self, timing: Timing, ended_ns: int) -> None:
        kinds = self._tracer.api.SpanKind
        steps = [(n, self._ns(from_s), self._ns(to_s)) for n, from_s, to_s in timing.steps or ()]
        if (from_s := timing.first_event_s or timing.responded_s) is not None:
            steps.append(("relay", self._ns(from_s), ended_ns))
        for name, from_ns, to_ns in steps:
            span = self._tracer.spans.start_span(
                name,
                context=self._below,
                kind=kinds.CLIENT if name == ENGINE else kinds.INTERNAL,
                start_time=from_ns,
            )
            span.end(to_ns)

    def _ns(self, at_s: float) -> int:
        return self._zero_ns + int(at_s * NS)


def untraced(headers: Headers) -> Headers:
    """The headers without those that carry a trace's context."""
    return [header for header in headers if header[0] not in TRACE_HEADERS]


def _carrier(headers: Headers) -> dict[str, str]:
    """A client's trace context, without invalid parts, which OpenTelemetry would log."""
    found = {name.decode(): value for name, value in headers if name in TRACE_HEADERS}
    if not TRACESTATE_VALUE.fullmatch(found.get("tracestate", b"")):
        del found["tracestate"]
    return {name: value.decode("latin-1") for name, value in found.items()}


def _attributes(
    summary: RequestSummary, headers: Headers, request: InferenceRequest | None
) -> dict[str, _Value]:
    found: dict[str, _Value] = {
        "client.address": summary.client,
        "gen_ai.request.model": summary.requested_model,
        "gen_ai.request.stream": summary.is_stream,
        "gen_ai.response.model": summary.adapter or summary.model,
        "gateway.attempts": summary.attempts,
        "gateway.outcome": summary.outcome,
    }
    if request is not None and request.head.max_tokens is not None:
        found["gen_ai.request.max_tokens"] = request.head.max_tokens
    if summary.ttft_s is not None:
        found["gen_ai.response.time_to_first_chunk"] = summary.ttft_s
    if summary.status:
        found["http.response.status_code"] = summary.status
    if summary.project:
        found |= {"gateway.project": summary.project, "gateway.key": summary.key}
    if summary.outcome in FAILURES:
        found["error.type"] = summary.outcome
    for name, value in headers:
        if name.startswith(HEADER_PREFIX) and name != header_names.DECISION:
            key = name.removeprefix(HEADER_PREFIX).decode().replace("-", "_")
            found[f"gateway.{key}"] = int(value) if value.isdigit() else value.decode("latin-1")
    return {name: value for name, value in found.items() if value != ""}


def _usage(finished: Finished) -> dict[str, _Value]:
    """Tokens, as the engine of the last attempt has counted them."""
    return {
        "gen_ai.usage.input_tokens": finished.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": finished.cached_tokens,
        "gen_ai.usage.output_tokens": finished.completion_tokens,
    }
