"""Lines of an input file, read from a stream of bytes in bounded memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from typing import NamedTuple

NEWLINE = b"\n"
LINES_AT_A_TIME = 256
"""Lines, blank ones included, that are split off before the event loop runs anything else."""


class InputLine(NamedTuple):
    """A line of an input file, without its end."""

    number: int
    """Number of the line in the file, from 1."""
    offset: int
    """Bytes of the file before it."""
    length: int
    """Bytes of it."""
    data: bytes | None
    """Its bytes; None if it is longer than lines may be."""


async def split_lines(
    parts: AsyncIterable[bytes], max_bytes: int
) -> AsyncGenerator[InputLine, None]:
    """Split a file into lines; blank ones are counted and left out.

    Holds one line and one part in memory, and of a line that is longer than `max_bytes` nothing.
    """
    splitter = _Splitter(max_bytes)
    async for part in parts:
        for line in splitter.feed(part):
            if line is None:
                await asyncio.sleep(0)
            else:
                yield line
    if (last := splitter.finish()) is not None:
        yield last


class _Splitter:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._number = 1
        self._offset = 0
        self._length = 0
        self._kept = bytearray()

    def feed(self, part: bytes) -> Iterator[InputLine | None]:
        """The lines that end in a part, and None whenever that has taken a while."""
        start = 0
        while (end := part.find(NEWLINE, start)) >= 0:
            self._extend(part[start:end])
            if (line := self._end(len(NEWLINE))) is not None:
                yield line
            if self._number % LINES_AT_A_TIME == 0:
                yield None
            start = end + len(NEWLINE)
        self._extend(part[start:])

    def finish(self) -> InputLine | None:
        return self._end(0)

    def _extend(self, data: bytes) -> None:
        self._length += len(data)
        if self._length <= self._max_bytes:
            self._kept += data
        else:
            self._kept.clear()

    def _end(self, newline: int) -> InputLine | None:
        is_whole = self._length <= self._max_bytes
        data = bytes(self._kept) if is_whole else None
        line = InputLine(self._number, self._offset, self._length, data)
        self._number += 1
        self._offset += self._length + newline
        self._length = 0
        self._kept.clear()
        return None if data is not None and not data.strip() else line
