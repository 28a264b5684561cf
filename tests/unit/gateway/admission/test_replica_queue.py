"""A lane: interactive before batch, and how long one would wait in it."""

import pytest

from gateway.admission.drain_rate import LEAST_STARTS, WINDOW_S, DrainRate
from gateway.admission.queue_item import QueueItem
from gateway.admission.replica_queue import ReplicaQueue
from gateway.request.tenant import Tenant
from tests.unit.conftest import Clock


def place(tenant: str, number: int, *, is_batch: bool = False) -> QueueItem:
    """A request that costs as much as any other."""
    return QueueItem(Tenant(tenant.encode()), 1.0, float(number), number, is_batch=is_batch)


def started(lane: ReplicaQueue[QueueItem]) -> QueueItem:
    """Who is started next where there is room for anybody."""
    place = lane.take(lambda _: True, lambda _: True)
    assert place is not None
    return place


def test_batch_comes_after_all_others(clock: Clock) -> None:
    """However long it has waited, and for whatever tenant."""
    lane = ReplicaQueue[QueueItem](clock)
    for number, is_batch in enumerate([True, False, True, False]):
        lane.add(place("a", number, is_batch=is_batch))
    lane.add(place("b", 4))
    assert [started(lane).number for _ in range(len(lane))] == [1, 4, 3, 0, 2]


@pytest.mark.parametrize(
    ("held", "interactive_passes", "batch_passes"),
    [
        ([], True, True),
        ([True], True, False),
        ([False], False, False),
        ([True, False], False, False),
    ],
)
def test_newcomers_pass_those_who_come_after_them(
    clock: Clock, held: list[bool], interactive_passes: bool, batch_passes: bool
) -> None:
    """Held batch requests are in nobody's way."""
    lane = ReplicaQueue[QueueItem](clock)
    for number, is_batch in enumerate(held):
        lane.add(place("a", number, is_batch=is_batch))
    assert lane.is_free(is_batch=False) == interactive_passes
    assert lane.is_free(is_batch=True) == batch_passes


def drained(clock: Clock, starts: int, every_s: float) -> ReplicaQueue[QueueItem]:
    """A lane that has started as many at that pace, and holds three more."""
    lane = ReplicaQueue[QueueItem](clock)
    for number in range(starts + 3):
        lane.add(place("a", number))
    for _ in range(starts):
        clock.now_s += every_s
        started(lane)
    return lane


def test_who_is_turned_away_comes_back_when_all_are_started(clock: Clock) -> None:
    """Three at two in a second, and batch after them."""
    lane = drained(clock, starts=20, every_s=0.5)
    lane.add(place("a", 90, is_batch=True))
    assert lane.clear_s(is_batch=False) == pytest.approx(1.5, rel=0.05)
    assert lane.clear_s(is_batch=True) == pytest.approx(2.0, rel=0.05)
    assert ReplicaQueue[QueueItem](clock).clear_s(is_batch=False) is None


def test_a_wait_is_foretold_from_what_was_started(clock: Clock) -> None:
    """Three ahead at two in a second are a second and a half; another tenant is the next."""
    lane = drained(clock, starts=20, every_s=0.5)
    lane.add(place("a", 90, is_batch=True))
    assert lane.wait_s(place("a", 99)) == pytest.approx(1.5, rel=0.05)
    assert lane.wait_s(place("b", 99)) == 0
    assert lane.wait_s(place("b", 99, is_batch=True)) == pytest.approx(2.0, rel=0.05)


def test_time_in_which_nobody_waits_does_not_count(clock: Clock) -> None:
    """After a pause the lane is thought to be as fast as it was."""
    lane = drained(clock, starts=20, every_s=0.5)
    for _ in range(3):
        clock.now_s += 0.5
        started(lane)
    clock.now_s += 10
    for number in range(90, 92):
        lane.add(place("a", number))
    assert lane.wait_s(place("a", 99)) == pytest.approx(1.0, rel=0.05)


def test_too_few_starts_foretell_nothing(clock: Clock) -> None:
    """A guess would turn requests away for nothing."""
    assert drained(clock, starts=2, every_s=0.5).wait_s(place("a", 99)) is None


def test_a_lane_that_stands_still_is_slow(clock: Clock) -> None:
    """Time without a start counts; time with nobody waiting does not."""
    slow, idle = DrainRate(clock), DrainRate(clock)
    for rate in (slow, idle):
        rate.begin()
        for _ in range(10):
            rate.start()
    clock.now_s += 1
    idle.rest()
    clock.now_s += 4
    assert slow.per_s == pytest.approx(2, rel=0.2)
    assert idle.per_s == pytest.approx(10, rel=0.2)


def test_what_is_long_past_is_forgotten(clock: Clock) -> None:
    """Yesterday's rate is no measure of today's."""
    rate = DrainRate(clock)
    rate.begin()
    for _ in range(4 * int(LEAST_STARTS)):
        rate.start()
    clock.now_s += 1
    before = rate.per_s
    rate.rest()
    clock.now_s += 2 * WINDOW_S
    assert before is not None
    assert rate.per_s is None
