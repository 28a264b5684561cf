"""Gauges of models, replicas and queues."""

import asyncio

import pytest

from gateway.identity.project import Project, RateLimit, SpendLimit
from gateway.ledger.price import Price
from gateway.ledger.view import AccountsView
from gateway.limits.project_limits import ProjectLimits
from gateway.routing.outlier_detector import CONSECUTIVE_FAILURES
from gateway.serving.body_budget import BodyBudget
from gateway.serving.gauges import Gauges
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.update import Load, Update
from gateway.telemetry.usage import Reservation, UsageRecord
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, Visit, answer
from tests.unit.recorder import KeptRecorder
from tests.unit.surface import Surface, script


@pytest.fixture
def recorder() -> KeptRecorder:
    """Where metrics go."""
    return KeptRecorder()


@pytest.fixture
def surface(upstream: UpstreamClient) -> Surface:
    """An application to look at."""
    return Surface(upstream)


@pytest.fixture
def bodies() -> BodyBudget:
    """Memory for bodies."""
    return BodyBudget(lambda: 1 << 20)


@pytest.fixture
def gauges(surface: Surface, bodies: BodyBudget, recorder: KeptRecorder) -> Gauges:
    """Its gauges."""
    return Gauges(surface.pools, bodies, recorder)


async def test_limits_are_gauged_with_what_is_used_and_what_went_beyond(
    surface: Surface, bodies: BodyBudget, recorder: KeptRecorder
) -> None:
    """What went beyond a limit is counted once; limits of money are in the currency's unit."""
    limits = ProjectLimits(lambda: 0.0, lambda: 1_800_000_000.0)
    gauges = Gauges(surface.pools, bodies, recorder, limits)
    rates = RateLimit(model="m", tokens_per_minute=100, concurrent_requests=3)
    alert = SpendLimit(amount_nano=2 * 10**9, interval="day", is_hard=False)
    project = Project(id="p", name="team", rate_limits=(rates,), spend_limits=(alert,))
    limits.replace([project])
    limits.record_view(
        AccountsView(
            version="1", as_of_s=1.8e9, prices=(Price(model="m", from_s=0, output_nano=10**15),)
        )
    )
    reservation = Reservation(id=1, project="p", model="m", tokens=130)
    for listener in limits.listeners:
        listener.record_reserved(reservation)
    gauges.publish()
    usage = UsageRecord(
        epoch=1,
        seq=1,
        id=1,
        model="m",
        arrived_s=1.8e9,
        ended_s=1.8e9,
        origin=Origin(project="p"),
        completion_tokens=3,
    )
    for listener in limits.listeners:
        listener.record_settled([(reservation, usage)])
    for _ in range(2):
        gauges.publish()

    labels = ("team", "m", "-")
    found = {key[1]: value for key, value in recorder.gauges.items() if key[0] == "gateway_limit"}
    day = ("team", "-", "-", "spend_day")
    assert found == {(*labels, "tokens"): 100, (*labels, "concurrent"): 3, day: 2}
    assert recorder.gauges["gateway_limit_used", (*labels, "tokens")] == 3
    assert recorder.gauges["gateway_limit_used", day] == 3
    assert recorder.counts["gateway_limit_excess", (*labels, "tokens")] == 30
    assert recorder.counts["gateway_spend_alerts", ("team", "day")] == 1


async def test_requests_are_gauged_where_they_are(
    surface: Surface, recorder: KeptRecorder, gauges: Gauges, start_engine: StartEngine
) -> None:
    """They are in an engine, in a queue, or waiting for an engine to start."""
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

    gauges.publish()
    go_on.set()

    stands = recorder.gauges
    in_flight = stands["gateway_in_flight", ("m",)]
    queued = stands["gateway_queued", ("m", "interactive")]
    assert in_flight >= 8
    assert in_flight + queued == 12
    assert stands["gateway_queued", ("m", "batch")] == 0
    assert stands["gateway_awaiting_start", ("cold",)] == 1
    assert stands["gateway_awaiting_start", ("m",)] == 0


async def test_replicas_are_gauged_by_state(
    surface: Surface, recorder: KeptRecorder, gauges: Gauges, start_engine: StartEngine
) -> None:
    """Each replica counts in one state; a state without replicas is 0."""
    engines = [await start_engine(script(answer(b"{}"))) for _ in range(4)]
    model = surface.add("m", *engines)
    scheduler = surface.pools.of(model).scheduler
    ready, draining, unreachable, failing = model.replicas.values()
    idle = Load(running=0, waiting=0, pending_tokens=0, free_tokens=1024)
    scheduler.record_update(ready.id, Update(is_snapshot=True, load=idle))
    scheduler.record_update(draining.id, Update(is_snapshot=True, load=idle, is_draining=True))
    scheduler.replicas.back_off(unreachable)
    for _ in range(CONSECUTIVE_FAILURES):
        scheduler.replicas.record_failure(failing)

    gauges.publish()

    states = {k[1][1]: n for k, n in recorder.gauges.items() if k[0] == "gateway_replicas"}
    assert states == {"ready": 1, "draining": 1, "backoff": 1, "ejected": 1}

    surface.fleet.replace_replicas(model, [ready])
    gauges.publish()

    states = {k[1][1]: n for k, n in recorder.gauges.items() if k[0] == "gateway_replicas"}
    assert states == {"ready": 1, "draining": 0, "backoff": 0, "ejected": 0}


async def test_gauges_of_a_removed_model_go_to_zero(
    surface: Surface, recorder: KeptRecorder, gauges: Gauges, start_engine: StartEngine
) -> None:
    """All its gauges do, also those of learned values; those of other models stay."""
    gone = surface.add("gone", await start_engine(script(answer(b"{}"))))
    surface.add("stays", await start_engine(script(answer(b"{}"))))
    gauges.publish()
    assert recorder.gauges["gateway_learned_step_seconds", ("gone",)] > 0

    surface.fleet.remove(gone)
    gauges.publish()

    assert {n for k, n in recorder.gauges.items() if "gone" in k[1]} == {0.0}
    assert recorder.gauges["gateway_learned_step_seconds", ("stays",)] > 0


async def test_held_bodies_are_gauged_against_their_limit(
    recorder: KeptRecorder, bodies: BodyBudget, gauges: Gauges
) -> None:
    """All bytes of requests under way count, and none of requests that have ended."""
    with bodies.open(b"one") as one, bodies.open(b"two") as two:
        one.complete(1000)
        two.complete(500)
        gauges.publish()
        assert recorder.gauges["gateway_body_bytes", ()] == 1500
        assert recorder.gauges["gateway_body_limit_bytes", ()] == 1 << 20

    gauges.publish()

    assert recorder.gauges["gateway_body_bytes", ()] == 0


async def test_counts_are_exported_every_period_and_at_the_end(
    recorder: KeptRecorder, gauges: Gauges
) -> None:
    """At the start of every period, and at last when it closes."""
    gauges.start()
    await asyncio.sleep(0)
    assert recorder.flushes == 1

    await gauges.close()

    assert recorder.flushes == 2
