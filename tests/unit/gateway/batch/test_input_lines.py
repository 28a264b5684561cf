"""An input file is read line by line, whatever the parts are that it comes in."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from gateway.batch.input_lines import InputLine, split_lines
from tests.unit.batches import once

LINES = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"x")), max_size=8)


async def _split(data: bytes, size: int, max_bytes: int = 1000) -> list[InputLine]:
    return [line async for line in split_lines(once(data, size), max_bytes)]


@given(LINES, st.integers(1, 20), st.booleans())
async def test_lines_are_the_same_in_parts_of_any_size(
    lines: list[bytes], size: int, ends: bool
) -> None:
    """Numbers and places are those of the whole file; blank lines count and are left out."""
    data = b"\n".join(lines) + b"\n" * ends

    found = await _split(data, size)

    expected = [(n, line) for n, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    assert [(each.number, each.data) for each in found] == expected
    assert all(data[x.offset : x.offset + x.length] == x.data for x in found)


async def test_a_line_that_is_too_long_is_not_held() -> None:
    """It is reported with its length, and the next one is read as usual."""
    found = await _split(b"a" * 50 + b"\nbc\n", 7, max_bytes=10)

    assert found == [InputLine(1, 0, 50, None), InputLine(2, 51, 2, b"bc")]


async def test_blank_lines_do_not_stop_the_event_loop() -> None:
    """However many there are, others run in between."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    found = await _split(b"\n" * 100_000, 1 << 20)
    counting.cancel()

    assert found == []
    assert turns > 100
