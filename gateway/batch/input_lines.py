"""Lines of an input file, read from a stream of bytes in bounded memory."""

from collections.abc import AsyncGenerator, AsyncIterable
from typing import NamedTuple

NEWLINE = b"\n"


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
            yield line
    for line in splitter.finish():
        yield line


class _Splitter:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._number = 1
        self._offset = 0
        self._length = 0
        self._kept = bytearray()

    def feed(self, part: bytes) -> list[InputLine]:
        found: list[InputLine] = []
        start = 0
        while (end := part.find(NEWLINE, start)) >= 0:
            self._extend(part[start:end])
            found += self._end(len(NEWLINE))
            start = end + len(NEWLINE)
        self._extend(part[start:])
        return found

    def finish(self) -> list[InputLine]:
        return self._end(0)

    def _extend(self, data: bytes) -> None:
        self._length += len(data)
        if self._length <= self._max_bytes:
            self._kept += data
        else:
            self._kept.clear()

    def _end(self, newline: int) -> list[InputLine]:
        is_whole = self._length <= self._max_bytes
        data = bytes(self._kept) if is_whole else None
        line = InputLine(self._number, self._offset, self._length, data)
        self._number += 1
        self._offset += self._length + newline
        self._length = 0
        self._kept.clear()
        return [] if data is not None and not data.strip() else [line]
