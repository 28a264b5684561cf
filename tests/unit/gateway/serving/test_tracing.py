"""Traces: what spans a request makes, and how the environment turns them on."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags

from gateway.config.serving_options import ServingOptions
from gateway.errors.startup import ConfigError
from gateway.serving.tracing import Tracer, tracer_of
from gateway.telemetry.update import Finished, Load, Update
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, answer
from tests.unit.projects import KEY, bearer, project, write_projects
from tests.unit.surface import CHAT, Surface, script

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """Where spans end."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> Iterator[Tracer]:
    """A tracer that exports at once."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer = Tracer(provider)
    yield tracer
    provider.shutdown()


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """All that have ended."""
    return {span.name: span for span in spans.get_finished_spans()}


async def test_a_request_is_a_span_with_its_steps_below(
    upstream: UpstreamClient, start_engine: StartEngine, tracer: Tracer, spans: InMemorySpanExporter
) -> None:
    """Below the client's own span; the steps lie within the request."""
    surface = Surface(upstream, tracer=tracer)
    engine = await start_engine(script(answer(b"{}")))
    surface.add("m", engine)

    async with surface.client() as client:
        headers = {"traceparent": PARENT, "tracestate": "a=b", "x-request-id": "mine"}
        await client.post(CHAT, json={"model": "m"}, headers=headers)

    found = by_name(spans)
    root = found.pop(f"POST {CHAT}")
    assert set(found) == {"receive", "route", "connect", "engine", "relay"}
    assert root.kind is SpanKind.SERVER
    assert format(root.context.trace_id, "032x") == TRACE_ID
    assert root.parent
    assert format(root.parent.span_id, "016x") == "b7ad6b7169203331"
    assert root.attributes
    assert root.attributes["gen_ai.operation.name"] == "chat"
    assert root.attributes["gen_ai.request.model"] == "m"
    assert root.attributes["gen_ai.response.model"] == "m"
    assert root.attributes["http.response.status_code"] == 200
    assert root.attributes["gateway.cached_tokens"] == 0
    assert root.attributes["gateway.request_id"] == "mine"
    assert root.attributes["gateway.outcome"] == "answered"
    assert root.attributes["gateway.replica"] == engine.replica().id
    for span in found.values():
        assert span.parent
        assert span.parent.span_id == root.context.span_id
        times_ns = [root.start_time, span.start_time, span.end_time, root.end_time]
        assert times_ns == sorted(times_ns, key=lambda time_ns: time_ns or 0)


async def test_a_span_has_the_tokens_that_its_engine_reports(
    upstream: UpstreamClient, start_engine: StartEngine, tracer: Tracer, spans: InMemorySpanExporter
) -> None:
    """They come after the answer; the span ends when the request did."""
    surface = Surface(upstream, tracer=tracer)
    engine = await start_engine(script(answer(b"{}")))
    model = surface.add("m", engine)
    scheduler, replica = surface.pools.of(model).scheduler, engine.replica().id
    load = Load(running=0, waiting=0, pending_tokens=0, free_tokens=0)
    scheduler.record_update(replica, Update(is_snapshot=True, load=load))

    async with surface.client() as client:
        await client.post(CHAT, json={"model": "m", "max_tokens": 7})
    assert f"POST {CHAT}" not in by_name(spans)
    (logged,) = surface.pools.decisions.latest()
    finished = Finished(
        id=logged.decision.id,
        prompt_tokens=30,
        cached_tokens=16,
        completion_tokens=5,
        prompt_bytes=90,
        queue_s=0.0,
        prefill_s=0.0,
        decode_s=0.0,
        running=1.0,
    )
    scheduler.record_update(replica, Update(finished=[finished]))

    found = by_name(spans)
    root = found[f"POST {CHAT}"]
    assert root.attributes
    wanted = {
        "client.address": "127.0.0.1",
        "gateway.attempts": 1,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.stream": False,
        "gen_ai.usage.cache_read.input_tokens": 16,
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 5,
    }
    assert {name: root.attributes[name] for name in wanted} == wanted
    assert found["relay"].end_time == root.end_time


async def test_the_trace_context_reaches_the_engine(
    upstream: UpstreamClient, start_engine: StartEngine, tracer: Tracer, spans: InMemorySpanExporter
) -> None:
    """Its spans are children of the gateway's."""
    surface = Surface(upstream, tracer=tracer)
    engine = await start_engine(script(answer(b"{}")))
    surface.add("m", engine)

    async with surface.client() as client:
        headers = {"traceparent": PARENT, "tracestate": "a=b"}
        await client.post(CHAT, json={"model": "m"}, headers=headers)

    root = by_name(spans)[f"POST {CHAT}"]
    (request,) = engine.requests
    wanted = f"traceparent: 00-{TRACE_ID}-{root.context.span_id:016x}-01\r\n".encode()
    assert wanted in request
    assert request.count(b"traceparent:") == 1
    assert b"tracestate: a=b\r\n" in request


async def test_a_failed_request_marks_its_span(
    upstream: UpstreamClient, start_engine: StartEngine, tracer: Tracer, spans: InMemorySpanExporter
) -> None:
    """An error of the engine's marks the span."""
    surface = Surface(upstream, tracer=tracer)
    surface.add("m", await start_engine(script(answer(b"{}", status=b"500 Oh"))))

    async with surface.client() as client:
        await client.post(CHAT, json={"model": "m"})

    root = by_name(spans)[f"POST {CHAT}"]
    assert root.status.status_code is StatusCode.ERROR
    assert root.attributes
    assert root.attributes["http.response.status_code"] == 500


@pytest.mark.parametrize(
    ("model", "status"), [("unknown", 404), ("none", 503)], ids=["refused", "failed"]
)
async def test_the_span_of_an_error_has_its_status(
    upstream: UpstreamClient, tracer: Tracer, spans: InMemorySpanExporter, model: str, status: int
) -> None:
    """So has one that is answered after the span has been written."""
    surface = Surface(upstream, tracer=tracer)
    surface.add("none").options = ServingOptions(cold_start_timeout_s=0.05)

    async with surface.client() as client:
        response = await client.post(CHAT, json={"model": model})

    (root,) = spans.get_finished_spans()[-1:]
    assert root.attributes
    assert root.attributes["http.response.status_code"] == response.status_code == status


@pytest.mark.parametrize("state", ["x" * 4000, "=,=\x7f"], ids=["long", "strange"])
async def test_an_invalid_trace_state_is_dropped(
    upstream: UpstreamClient,
    start_engine: StartEngine,
    tracer: Tracer,
    caplog: pytest.LogCaptureFixture,
    state: str,
) -> None:
    """It is not logged: a client could write anything there."""
    surface = Surface(upstream, tracer=tracer)
    surface.add("m", await start_engine(script(answer(b"{}"))))

    async with surface.client() as client:
        headers = {"traceparent": PARENT, "tracestate": state}
        response = await client.post(CHAT, json={"model": "m"}, headers=headers)

    assert response.status_code == 200
    assert not caplog.records


async def test_requests_that_are_not_sampled_write_no_spans(
    upstream: UpstreamClient, start_engine: StartEngine, spans: InMemorySpanExporter
) -> None:
    """The engine gets that decision, and answers nevertheless."""
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    surface = Surface(upstream, tracer=Tracer(provider))
    engine = await start_engine(script(answer(b"{}")))
    surface.add("m", engine)

    async with surface.client() as client:
        response = await client.post(CHAT, json={"model": "m"})

    assert response.status_code == 200
    assert not spans.get_finished_spans()
    parent = engine.requests[0].partition(b"traceparent: ")[2].partition(b"\r\n")[0]
    assert not int(parent.split(b"-")[3], 16) & TraceFlags.SAMPLED


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_METRICS_EXPORTER": "otlp"},
    ],
)
def test_nothing_is_traced_unless_asked_for(environ: dict[str, str]) -> None:
    """Tracing is off without the standard variables, and if they say so."""
    assert tracer_of(environ) is None


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "console"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
async def test_the_standard_variables_turn_it_on(environ: dict[str, str]) -> None:
    """An exporter by name, or an endpoint."""
    tracer = tracer_of(environ)

    assert tracer is not None
    await tracer.close()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: `zipkin`"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "x"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: `x`",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: `http/json`",
        ),
    ],
)
def test_invalid_variables_are_named(environ: dict[str, str], words: str) -> None:
    """The error has the variable, its value and the valid values."""
    with pytest.raises(ConfigError, match=words):
        tracer_of(environ)


def test_tracing_that_is_off_imports_nothing() -> None:
    """A router that traces nothing does not pay for it."""
    code = (
        "import sys; from gateway.serving.tracing import tracer_of; assert tracer_of({}) is None;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_span_names_the_project_and_the_id_of_the_key(
    upstream: UpstreamClient, tmp_path: Path, tracer: Tracer, spans: InMemorySpanExporter
) -> None:
    """Never the key itself; log lines name the project, too."""
    path = write_projects(tmp_path / "p.yaml", project("search", KEY, id="proj_1"))
    surface = Surface(upstream, tracer=tracer)
    surface.configure(auth={"projects": [path]})
    async with surface.client() as client:
        await client.post(CHAT, json={"model": "m"}, headers=bearer())
    attributes = by_name(spans)[f"POST {CHAT}"].attributes
    assert attributes
    assert attributes["gateway.project"] == "proj_1"
    assert str(attributes["gateway.key"]).startswith("key_")
    assert KEY not in str(dict(attributes))
