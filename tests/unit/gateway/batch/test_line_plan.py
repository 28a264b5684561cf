"""A plan has all lines in order, also if they do not fit into memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch.line_plan import LinePlace, LinePlan, LineSorter


async def _plan(keys: list[bytes], run_lines: int) -> LinePlan:
    sorter = LineSorter(run_lines)
    for number, key in enumerate(keys, 1):
        await sorter.add(key, LinePlace(number, number * 2**33, 7))
    records = b"".join([part async for part in sorter.plan()])
    sorter.close()
    return LinePlan(records)


@given(st.lists(st.binary(max_size=4), max_size=40), st.integers(1, 12))
async def test_lines_come_in_the_order_of_their_keys(keys: list[bytes], run_lines: int) -> None:
    """However many of them are sorted at a time, as one sort of all would have them."""
    plan = await _plan(keys, run_lines)

    expected = sorted(enumerate(keys, 1), key=lambda each: (each[1], each[0]))
    assert [plan.place(n) for n in range(len(plan))] == [
        LinePlace(number, number * 2**33, 7) for number, _ in expected
    ]


def test_a_plan_that_is_cut_off_is_refused() -> None:
    """It would run some lines never."""
    with pytest.raises(ValueError, match="not whole"):
        LinePlan(b"123")
