"""The replica queue: interactive before batch, and the predicted wait."""

import pytest

from gateway.admission.bypass_queue import StartVerdict
from gateway.admission.drain_rate import MIN_STARTS, WINDOW_S, DrainRate
from gateway.admission.queue_item import QueueItem
from gateway.admission.replica_queue import ReplicaQueue
from gateway.request.tenant import Tenant
from tests.unit.conftest import Clock


def place(tenant: str, number: int, *, is_batch: bool = False) -> QueueItem:
    """A request that costs as much as any other."""
    return QueueItem(Tenant(tenant.encode()), 1.0, float(number), number, is_batch=is_batch)


def started(queue: ReplicaQueue[QueueItem]) -> QueueItem:
    """The request started next where there is room for any."""
    place = queue.pop(lambda _: StartVerdict.START)
    assert place is not None
    return place


def test_batch_comes_after_all_others(clock: Clock) -> None:
    """However long it has waited, and for whatever tenant."""
    queue = ReplicaQueue[QueueItem](clock)
    for number, is_batch in enumerate([True, False, True, False]):
        queue.add(place("a", number, is_batch=is_batch))
    queue.add(place("b", 4))
    assert [started(queue).number for _ in range(len(queue))] == [1, 4, 3, 0, 2]


@pytest.mark.parametrize(
    ("queued", "interactive_passes", "batch_passes"),
    [
        ([], True, True),
        ([True], True, False),
        ([False], False, False),
        ([True, False], False, False),
    ],
)
def test_new_requests_pass_those_of_lower_priority(
    clock: Clock, queued: list[bool], interactive_passes: bool, batch_passes: bool
) -> None:
    """Queued batch requests do not delay interactive ones."""
    queue = ReplicaQueue[QueueItem](clock)
    for number, is_batch in enumerate(queued):
        queue.add(place("a", number, is_batch=is_batch))
    assert queue.is_free(is_batch=False) == interactive_passes
    assert queue.is_free(is_batch=True) == batch_passes


def drained(clock: Clock, starts: int, every_s: float) -> ReplicaQueue[QueueItem]:
    """A queue that has started that many requests at that pace, and holds three more."""
    queue = ReplicaQueue[QueueItem](clock)
    for number in range(starts + 3):
        queue.add(place("a", number))
    for _ in range(starts):
        clock.now_s += every_s
        started(queue)
    return queue


def test_the_retry_time_is_when_the_queue_has_drained(clock: Clock) -> None:
    """Three at two in a second, and batch after them."""
    queue = drained(clock, starts=20, every_s=0.5)
    queue.add(place("a", 90, is_batch=True))
    assert queue.drain_s(is_batch=False) == pytest.approx(1.5, rel=0.05)
    assert queue.drain_s(is_batch=True) == pytest.approx(2.0, rel=0.05)
    assert ReplicaQueue[QueueItem](clock).drain_s(is_batch=False) is None


def test_a_wait_is_predicted_from_the_drain_rate(clock: Clock) -> None:
    """Three ahead at two in a second are a second and a half; another tenant is the next."""
    queue = drained(clock, starts=20, every_s=0.5)
    queue.add(place("a", 90, is_batch=True))
    assert queue.wait_s(place("a", 99)) == pytest.approx(1.5, rel=0.05)
    assert queue.wait_s(place("b", 99)) == 0
    assert queue.wait_s(place("b", 99, is_batch=True)) == pytest.approx(2.0, rel=0.05)


def test_idle_time_does_not_count(clock: Clock) -> None:
    """After a pause the queue is thought to be as fast as it was."""
    queue = drained(clock, starts=20, every_s=0.5)
    for _ in range(3):
        clock.now_s += 0.5
        started(queue)
    clock.now_s += 10
    for number in range(90, 92):
        queue.add(place("a", number))
    assert queue.wait_s(place("a", 99)) == pytest.approx(1.0, rel=0.05)


def test_too_few_starts_give_no_estimate(clock: Clock) -> None:
    """A guess would turn requests away for nothing."""
    assert drained(clock, starts=2, every_s=0.5).wait_s(place("a", 99)) is None


def test_a_queue_without_starts_has_a_falling_rate(clock: Clock) -> None:
    """Time without a start counts, unless no request waits."""
    slow, idle = DrainRate(clock), DrainRate(clock)
    for rate in (slow, idle):
        rate.resume()
        for _ in range(10):
            rate.record_start()
    clock.now_s += 1
    idle.pause()
    clock.now_s += 4
    assert slow.per_s == pytest.approx(2, rel=0.2)
    assert idle.per_s == pytest.approx(10, rel=0.2)


def test_old_starts_are_forgotten(clock: Clock) -> None:
    """Yesterday's rate is no measure of today's."""
    rate = DrainRate(clock)
    rate.resume()
    for _ in range(4 * int(MIN_STARTS)):
        rate.record_start()
    clock.now_s += 1
    before = rate.per_s
    rate.pause()
    clock.now_s += 2 * WINDOW_S
    assert before is not None
    assert rate.per_s is None
