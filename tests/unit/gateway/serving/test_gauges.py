"""How models, replicas and queues stand, as gauges."""

import asyncio

import pytest

from gateway.routing.outlier_detector import CONSECUTIVE_FAILURES
from gateway.serving.gauges import Gauges
from gateway.telemetry import Load, Update
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, Visit, answer
from tests.unit.recorder import KeptRecorder
from tests.unit.surface import Surface, script


@pytest.fixture
def recorder() -> KeptRecorder:
    """What is told."""
    return KeptRecorder()


@pytest.fixture
def surface(upstream: UpstreamClient) -> Surface:
    """An application to look at."""
    return Surface(upstream)


@pytest.fixture
def gauges(surface: Surface, recorder: KeptRecorder) -> Gauges:
    """Its gauges."""
    context = surface.context
    return Gauges(
        surface.fleet, surface.schedulers, context.admissions, context.cold_starts, recorder
    )


async def test_requests_are_told_where_they_are(
    surface: Surface, recorder: KeptRecorder, gauges: Gauges, start_engine: StartEngine
) -> None:
    """In an engine, held back, or waiting for an engine to start."""
    go_on = asyncio.Event()

    async def run(tracked: Visit) -> None:
        await go_on.wait()
        await tracked.send(answer(b"{}"))

    engine = await start_engine(run)
    surface.add("m", engine)
    surface.add("cold")
    for _ in range(12):
        surface.load("m")
    surface.load("cold")
    while not (engine.requests and surface.woken):  # noqa: ASYNC110 - no event of ours
        await asyncio.sleep(0.005)

    gauges.tell()
    go_on.set()

    stands = recorder.gauges
    in_flight = stands["gateway_in_flight", ("m",)]
    queued = stands["gateway_queued", ("m", "interactive")]
    assert in_flight >= 8
    assert in_flight + queued == 12
    assert stands["gateway_queued", ("m", "batch")] == 0
    assert stands["gateway_awaiting_start", ("cold",)] == 1
    assert stands["gateway_awaiting_start", ("m",)] == 0


async def test_replicas_are_told_by_how_they_stand(
    surface: Surface, recorder: KeptRecorder, gauges: Gauges, start_engine: StartEngine
) -> None:
    """Each in one state only; a state that none is in any more stands at 0."""
    engines = [await start_engine(script(answer(b"{}"))) for _ in range(4)]
    model = surface.add("m", *engines)
    scheduler = surface.schedulers.of(model)
    ready, draining, unreachable, failing = model.replicas.values()
    idle = Load(running=0, waiting=0, pending_tokens=0, free_tokens=1024)
    scheduler.record_update(ready.id, Update(is_snapshot=True, load=idle))
    scheduler.record_update(draining.id, Update(is_snapshot=True, load=idle, is_draining=True))
    scheduler.replicas.back_off(unreachable)
    for _ in range(CONSECUTIVE_FAILURES):
        scheduler.replicas.record_failure(failing)

    gauges.tell()

    states = {k[1][1]: n for k, n in recorder.gauges.items() if k[0] == "gateway_replicas"}
    assert states == {"ready": 1, "draining": 1, "backoff": 1, "ejected": 1}

    surface.fleet.replace_replicas(model, [ready])
    gauges.tell()

    states = {k[1][1]: n for k, n in recorder.gauges.items() if k[0] == "gateway_replicas"}
    assert states == {"ready": 1, "draining": 0, "backoff": 0, "ejected": 0}


async def test_a_model_that_is_gone_stands_at_nothing(
    surface: Surface, recorder: KeptRecorder, gauges: Gauges, start_engine: StartEngine
) -> None:
    """All its gauges, those of what was learned too; other models' stay."""
    gone = surface.add("gone", await start_engine(script(answer(b"{}"))))
    surface.add("stays", await start_engine(script(answer(b"{}"))))
    gauges.tell()
    assert recorder.gauges["gateway_learned_step_seconds", ("gone",)] > 0

    surface.fleet.remove(gone)
    gauges.tell()

    assert {n for k, n in recorder.gauges.items() if k[1][0] == "gone"} == {0.0}
    assert recorder.gauges["gateway_learned_step_seconds", ("stays",)] > 0


async def test_what_was_counted_is_passed_on(recorder: KeptRecorder, gauges: Gauges) -> None:
    """At the start of every period, and at last when it closes."""
    gauges.start()
    await asyncio.sleep(0)
    assert recorder.flushes == 1

    await gauges.close()

    assert recorder.flushes == 2
