"""The bypass queue: which requests pass which while there is room for small ones only."""

import pytest

from gateway.admission.bypass_queue import MAX_ASIDE, BypassQueue, StartVerdict
from gateway.admission.queue_item import QueueItem
from gateway.request.tenant import Tenant


def queue_of(tokens: list[int]) -> BypassQueue[QueueItem]:
    """A queue of requests of so many tokens, in this order."""
    queue = BypassQueue[QueueItem]()
    for number, cost in enumerate(tokens):
        queue.add(QueueItem(Tenant(), cost, float(number), number))
    return queue


def taken(queue: BypassQueue[QueueItem], room: int, patient: bool = True) -> list[int]:
    """The requests started one after the other, where each must fit into that much room."""

    def check(place: QueueItem) -> StartVerdict:
        if place.tokens <= room:
            return StartVerdict.START
        return StartVerdict.STEP_ASIDE if patient else StartVerdict.WAIT

    places = iter(lambda: queue.pop(check), None)
    return [place.number for place in places]


@pytest.mark.parametrize(
    ("tokens", "room", "patient", "started"),
    [
        ([1, 2, 3], 9, True, [0, 1, 2]),
        ([50, 2, 3], 9, True, [1, 2]),
        ([50, 2, 60, 3], 9, True, [1, 3]),
        ([50, 2, 3], 9, False, []),
        ([2, 50, 3], 9, False, [0]),
        ([50] * MAX_ASIDE + [1], 9, True, [MAX_ASIDE]),
        ([50] * (MAX_ASIDE + 1) + [1], 9, True, []),
        ([], 9, True, []),
    ],
)
def test_small_requests_pass_a_large_one(
    tokens: list[int], room: int, patient: bool, started: list[int]
) -> None:
    """They may for as long as the large ones let them, of which only a few can step aside."""
    queue = queue_of(tokens)
    assert taken(queue, room, patient) == started
    assert len(queue) == len(tokens) - len(started)


def test_requests_that_stepped_aside_are_checked_first() -> None:
    """They keep their order, and none passes a request that lets no others pass."""
    queue = queue_of([50, 60, 1])
    assert taken(queue, 9) == [2]
    queue.add(QueueItem(Tenant(), 2, -1.0, 3))
    assert taken(queue, 9, patient=False) == []
    assert taken(queue, 60) == [0, 1, 3]


def test_a_request_that_stepped_aside_can_be_removed() -> None:
    """It is found there, like any other."""
    queue = queue_of([50, 60, 1])
    stays, goes, new = (QueueItem(Tenant(), 50, number, number) for number in range(10, 13))
    for place in (stays, goes):
        queue.add(place)
    taken(queue, 9)
    assert [queue.ahead(place) for place in (stays, goes, new)] == [2, 3, 4]
    queue.remove(stays)
    assert [queue.ahead(place) for place in (goes, new)] == [2, 3]


def test_a_request_that_yields_keeps_no_other_from_starting() -> None:
    """One that has stepped aside, that is; where the first one yields, so do all after it."""
    queue = queue_of([50, 1, 2])
    assert (
        queue.pop(lambda p: StartVerdict.STEP_ASIDE if p.number == 0 else StartVerdict.WAIT) is None
    )
    after = queue.pop(lambda p: StartVerdict.YIELD if p.number == 0 else StartVerdict.START)
    assert after is not None
    assert after.number == 1
    assert queue.pop(lambda p: StartVerdict.YIELD) is None
    assert len(queue) == 2
