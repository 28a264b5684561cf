"""Publisher of demand: what it sends to engines that answer, and to one that does not."""

import asyncio
from collections.abc import Callable

import msgspec

from gateway.routing.fleet import Replica
from gateway.serving.demand_publisher import DemandPublisher
from gateway.telemetry.demand import Demand
from tests.unit.conftest import FakeEngine, StartEngine, Visit, answer


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    for _ in range(20_000):
        if is_so():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never is")


async def take(visit: Visit) -> None:
    """Answer a report."""
    await visit.send(answer(b""))


def reports(engine: FakeEngine) -> list[Demand]:
    """What an engine was told."""
    bodies = [request.partition(b"\r\n\r\n")[2] for request in engine.requests]
    return [msgspec.json.decode(body, type=Demand) for body in bodies]


async def test_a_hung_engine_delays_no_report_to_the_others(start_engine: StartEngine) -> None:
    """However many reports have become due meanwhile, of which it gets the latest alone."""
    is_hung = asyncio.Event()

    async def hang(visit: Visit) -> None:
        await is_hung.wait()
        await take(visit)

    hung, well = await start_engine(hang), await start_engine(take)
    here = hung.replica(), well.replica()
    held: dict[Replica, Demand] = {}
    publisher = DemandPublisher(lambda: dict(held), router="me")
    for number in range(1, 6):
        held = dict.fromkeys(here, Demand(requests=number))
        await asyncio.wait_for(publisher.publish(), 20)
        await until(lambda number=number: len(well.requests) == number)  # type: ignore[misc]
    assert len(publisher._sending) == 1
    is_hung.set()
    await until(lambda: len(hung.requests) == 2)
    await publisher.close()

    assert [each.requests for each in reports(well)] == [1, 2, 3, 4, 5]
    assert [each.requests for each in reports(hung)] == [1, 5]


async def test_closing_awaits_no_hung_engine(start_engine: StartEngine) -> None:
    """The report that is under way is given up."""

    async def hang(visit: Visit) -> None:
        await visit.until_gone()

    engine = await start_engine(hang)
    replica = engine.replica()
    publisher = DemandPublisher(lambda: {replica: Demand(requests=1)})
    publisher.start()
    await until(lambda: len(engine.requests) == 1)
    await publisher.close()
    assert not publisher._sending
