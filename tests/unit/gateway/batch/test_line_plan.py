"""A plan has all lines in order, also if they do not fit into memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch.line_order import order_key
from gateway.batch.line_plan import LinePlace, LinePlan, LineSorter


async def _plan(keys: list[bytes], run_lines: int) -> LinePlan:
    sorter = LineSorter(run_lines)
    for number, key in enumerate(keys, 1):
        await sorter.add(key, LinePlace(number, number * 2**33, 7, 0))
    records = b"".join([part async for part in sorter.plan()])
    sorter.close()
    return LinePlan(records)


@given(st.lists(st.binary(max_size=4), max_size=40), st.integers(1, 12))
async def test_lines_come_in_the_order_of_their_keys(keys: list[bytes], run_lines: int) -> None:
    """However many of them are sorted at a time, as one sort of all would have them."""
    plan = await _plan(keys, run_lines)

    expected = sorted(enumerate(keys, 1), key=lambda each: (each[1], each[0]))
    assert [plan.place(n) for n in range(len(plan))] == [
        LinePlace(number, number * 2**33, 7, 0) for number, _ in expected
    ]


async def test_a_plan_tells_what_is_new_of_a_prompt() -> None:
    """What a line shares with the one before it is in the cache by then."""
    shared, other = order_key([1, 2, 3, 4]), order_key([1, 2, 7, 8])
    sorter = LineSorter()
    for number, key in enumerate((other, shared, shared), 1):
        await sorter.add(key, LinePlace(number, 0, 1, 1100))
    plan = LinePlan(b"".join([part async for part in sorter.plan()]))

    assert [plan.place(n).prompt_bytes for n in range(3)] == [1100, 1100 - 4 * 256, 1100 - 2 * 256]


def test_a_plan_that_is_cut_off_is_refused() -> None:
    """It would run some lines never."""
    with pytest.raises(ValueError, match="not whole"):
        LinePlan(b"123")
