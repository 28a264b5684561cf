"""Lanes hand out each position once, and long stretches to each."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.batch.lanes import Lanes
from gateway.batch.line_set import LineSet, pack_lines, unpack_lines


@given(
    st.integers(0, 60),
    st.sets(st.integers(0, 59)),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 20)), max_size=20),
)
def test_each_position_is_handed_out_once(
    positions: int, done: set[int], turns: list[tuple[int, int]]
) -> None:
    """Whichever lanes ask, and however their number changes."""
    lanes = Lanes(positions, done.__contains__)

    found: list[int] = []
    for count, asks in [*turns, (3, 100)]:
        lanes.keep(count)
        found += [
            position for ask in range(asks) if (position := lanes.next(ask % count)) is not None
        ]

    assert sorted(found) == sorted(set(range(positions)) - done)
    assert lanes.left == 0


def test_a_lane_stays_in_its_stretch() -> None:
    """Two lanes that take turns have neighbours each: together they change stretch once."""
    lanes = Lanes(100, lambda _: False)

    found: dict[int, list[int]] = {0: [], 1: []}
    for turn in range(100):
        position = lanes.next(turn % 2)
        assert position is not None
        found[turn % 2].append(position)

    jumps = [sum(b - a != 1 for a, b in pairwise(each)) for each in found.values()]
    assert sum(jumps) <= 8


@given(st.sets(st.integers(1, 300)))
def test_a_set_of_lines_has_what_was_added(numbers: set[int]) -> None:
    """Also after it was packed."""
    lines = LineSet(300)

    lines.update(unpack_lines(pack_lines(numbers)))

    assert len(lines) == len(numbers)
    assert {number for number in range(1, 301) if number in lines} == numbers
