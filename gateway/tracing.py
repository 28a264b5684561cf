"""OpenTelemetry traces: a span for each request, and one below it for each step it took.

On where OpenTelemetry's standard variables name an exporter (`OTEL_TRACES_EXPORTER`, or an
`OTEL_EXPORTER_OTLP_ENDPOINT`), which also name the service, the sampler and the endpoint. Spans are
written when a request has ended, from its `Timing`; off, nothing of OpenTelemetry is imported.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.errors import ConfigError
from gateway.relay.asgi import Headers
from gateway.relay.reply import Reply
from gateway.relay.timing import Timing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SCOPE = "ray-llm-gateway"
CONTEXT = (b"traceparent", b"tracestate")
"""The headers that carry a trace on."""
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
"""What OpenTelemetry's conventions for generative AI call some of our routes."""
HEADER_PREFIX = b"x-gateway-"
TOLD_ELSEWHERE = b"x-gateway-decision"
NS = 1_000_000_000


def tracer_of(environ: Mapping[str, str]) -> "Tracer | None":
    """The tracer that the environment asks for; None if it asks for none.

    Raises:
        ConfigError: it asks for an exporter that there is not.
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


def _exporting(wanted: str, environ: Mapping[str, str]) -> "Tracer":
    exporter = _exporter(wanted, environ)
    # A fifth of a second of imports, for those who want it.
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = environ.get("OTEL_SERVICE_NAME") or SCOPE
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracer(provider)


def _exporter(wanted: str, environ: Mapping[str, str]) -> "SpanExporter":
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), "http/protobuf")
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
            raise ConfigError(f"{PROTOCOLS[1]}: `{protocol}` is not grpc or http/protobuf")
    raise ConfigError(f"OTEL_TRACES_EXPORTER: `{wanted}` is not otlp, console or none")


class Tracer:
    """Makes a trace of every request that its provider samples."""

    def __init__(self, provider: "TracerProvider") -> None:
        # Only here, so that nobody pays for it who does not trace.
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

    def close(self) -> None:
        """Export what is left; blocks for some seconds where the collector does not answer."""
        self._provider.shutdown()


class Trace:
    """One request's."""

    def __init__(
        self, tracer: Tracer, route: str, headers: Headers, request_id: bytes, timing: Timing
    ) -> None:
        self._tracer = tracer
        self._zero_ns = time.time_ns() - int(timing.now() * NS)
        """Where `timing`'s clock began, since the epoch."""
        timing.steps = []
        api = tracer.api
        carrier = {n.decode(): v.decode("latin-1") for n, v in headers if n in CONTEXT}
        self._span = tracer.spans.start_span(
            f"POST {route}",
            context=tracer.propagator.extract(carrier),
            kind=api.SpanKind.SERVER,
            attributes={
                "http.request.method": "POST",
                "http.route": route,
                "gen_ai.operation.name": OPERATIONS.get(route, route),
                "gateway.request_id": request_id.decode(),
            },
            start_time=self._ns(timing.began_s),
        )
        self._below = api.set_span_in_context(self._span)

    def passed_on(self, headers: Headers) -> Headers:
        """The request's headers for an engine, whose spans come below ours."""
        carrier: dict[str, str] = {}
        self._tracer.propagator.inject(carrier, context=self._below)
        others = [header for header in headers if header[0] not in CONTEXT]
        return others + [(name.encode(), value.encode()) for name, value in carrier.items()]

    def end(self, model: str, outcome: str, reply: Reply) -> None:
        """The request has ended."""
        timing, span = reply.timing, self._span
        ended_s = timing.now()
        if span.is_recording():
            steps = timing.steps or []
            if timing.replied_s is not None:
                steps.append(("relay", timing.replied_s, ended_s))
            for name, from_s, to_s in steps:
                step = self._tracer.spans.start_span(
                    name, context=self._below, start_time=self._ns(from_s)
                )
                step.end(self._ns(to_s))
            span.set_attributes(
                {
                    "gen_ai.request.model": model,
                    "gateway.outcome": outcome,
                    "http.response.status_code": reply.status,
                    **_told(reply.headers),
                }
            )
            if outcome in {"failed", "cut", "timeout"}:
                span.set_status(self._tracer.api.StatusCode.ERROR, outcome)
        span.end(self._ns(ended_s))

    def _ns(self, at_s: float) -> int:
        return self._zero_ns + int(at_s * NS)


def _told(headers: Headers) -> dict[str, str]:
    """What the client was told of the request's way."""
    return {
        f"gateway.{name.removeprefix(HEADER_PREFIX).decode().replace('-', '_')}": value.decode()
        for name, value in headers
        if name.startswith(HEADER_PREFIX) and name != TOLD_ELSEWHERE
    }
