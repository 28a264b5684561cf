"""Who passes whom while there is room for small requests only."""

import pytest

from gateway.admission.bypass_queue import ASIDE, BypassQueue
from gateway.admission.queue_item import QueueItem
from gateway.request.tenant import Tenant


def line_of(tokens: list[int]) -> BypassQueue[QueueItem]:
    """A line of requests of so many tokens, in this order."""
    line = BypassQueue[QueueItem]()
    for number, cost in enumerate(tokens):
        line.add(QueueItem(Tenant(), cost, float(number), number))
    return line


def taken(line: BypassQueue[QueueItem], room: int, patient: bool = True) -> list[int]:
    """Who is started one after the other, where each must fit into as much room."""
    places = iter(lambda: line.take(lambda p: p.tokens <= room, lambda _: patient), None)
    return [place.number for place in places]


@pytest.mark.parametrize(
    ("tokens", "room", "patient", "started"),
    [
        ([1, 2, 3], 9, True, [0, 1, 2]),
        ([50, 2, 3], 9, True, [1, 2]),
        ([50, 2, 60, 3], 9, True, [1, 3]),
        ([50, 2, 3], 9, False, []),
        ([2, 50, 3], 9, False, [0]),
        ([50] * ASIDE + [1], 9, True, [ASIDE]),
        ([50] * (ASIDE + 1) + [1], 9, True, []),
        ([], 9, True, []),
    ],
)
def test_small_ones_pass(tokens: list[int], room: int, patient: bool, started: list[int]) -> None:
    """As long as those before them can wait, and not too many of these do."""
    line = line_of(tokens)
    assert taken(line, room, patient) == started
    assert len(line) == len(tokens) - len(started)


def test_who_has_stepped_aside_is_looked_at_first() -> None:
    """In the order in which they were first; nobody passes who comes after an impatient one."""
    line = line_of([50, 60, 1])
    assert taken(line, 9) == [2]
    line.add(QueueItem(Tenant(), 2, -1.0, 3))
    assert taken(line, 9, patient=False) == []
    assert taken(line, 60) == [0, 1, 3]


def test_one_that_stands_aside_can_go() -> None:
    """It is found there, like any other."""
    line = line_of([50, 60, 1])
    stays, goes, new = (QueueItem(Tenant(), 50, number, number) for number in range(10, 13))
    for place in (stays, goes):
        line.add(place)
    taken(line, 9)
    assert [line.ahead(place) for place in (stays, goes, new)] == [2, 3, 4]
    line.remove(stays)
    assert [line.ahead(place) for place in (goes, new)] == [2, 3]
