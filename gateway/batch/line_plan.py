"""Plan of a batch: where each line is in its input file, in the order in which lines run.

A plan is a file of records of 24 bytes, so a million lines fit into 24 MB. It is made by an
external merge sort: so many lines at a time are sorted in memory, and each sorted run waits in a
temporary file.
"""

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from struct import Struct
from typing import BinaryIO, NamedTuple, Self

from gateway.batch.line_order import shared_depth
from gateway.batch.temporary_files import disk_errors, temporary_file
from gateway.kvcache.prefix import KEY_BYTES as PREFIX_BYTES

RUN_LINES = 50_000
"""Lines that are sorted in memory: some 20 MB."""
WRITTEN_LINES = 4096
"""Lines of a plan that are handed on at a time."""
_RECORD = Struct("<IQIII")
_KEY_LENGTH = Struct("<H")
RECORD_BYTES = _RECORD.size


class LinePlace(NamedTuple):
    """Where a line is in its input file."""

    number: int
    """Number of the line, from 1."""
    offset: int
    length: int
    prompt_bytes: int
    """Bytes of its prompt; in a plan, those that it does not share with the line before it."""
    sequences: int = 1
    """Sequences that an engine runs for it: its prompts, times the answers that it wants."""


class LineSorter:
    """Sorts the places of lines by keys, in bounded memory; close it in the end."""

    def __init__(self, run_lines: int = RUN_LINES) -> None:
        self._run_lines = run_lines
        self._run: list[tuple[bytes, LinePlace]] = []
        self._spilled: list[BinaryIO] = []
        self.lines = 0

    async def add(self, key: bytes, place: LinePlace) -> None:
        """Add a line; those with equal keys stay in the order of the file.

        Raises:
            StorageUnavailable: there is no room for a temporary file.
        """
        self._run.append((key, place))
        self.lines += 1
        if len(self._run) >= self._run_lines:
            run, self._run = self._run, []
            self._spilled.append(temporary_file())
            with disk_errors():
                await asyncio.to_thread(_spill, run, self._spilled[-1])

    async def plan(self) -> AsyncIterator[bytes]:
        """The records of all lines in order, some at a time."""
        merged = heapq.merge(*map(_read_run, self._spilled), sorted(self._run))
        fresh = _fresh(merged)
        with disk_errors():
            while written := await asyncio.to_thread(_next_records, fresh):
                yield written

    def close(self) -> None:
        """Delete the temporary files."""
        for file in self._spilled:
            with contextlib.suppress(OSError):  # what is still to be written has no room
                file.close()


class LinePlan:
    """A plan that has been read."""

    def __init__(self, records: bytes) -> None:
        if len(records) % RECORD_BYTES:
            raise ValueError(f"a plan of {len(records)} bytes is not whole")
        self._records = records

    @classmethod
    def of(cls, places: Iterable[LinePlace]) -> Self:
        """A plan of these places, in this order."""
        return cls(b"".join([_RECORD.pack(*place) for place in places]))

    def __len__(self) -> int:
        return len(self._records) // RECORD_BYTES

    def place(self, position: int) -> LinePlace:
        """The place of the line that is at a position of the order, from 0."""
        return LinePlace(*_RECORD.unpack_from(self._records, position * RECORD_BYTES))


def _spill(run: list[tuple[bytes, LinePlace]], file: BinaryIO) -> None:
    run.sort()
    file.writelines(_KEY_LENGTH.pack(len(key)) + key + _RECORD.pack(*place) for key, place in run)


def _read_run(file: BinaryIO) -> Iterator[tuple[bytes, LinePlace]]:
    file.seek(0)
    while length := file.read(_KEY_LENGTH.size):
        key = file.read(*_KEY_LENGTH.unpack(length))
        yield key, LinePlace(*_RECORD.unpack(file.read(_RECORD.size)))


def _fresh(merged: Iterable[tuple[bytes, LinePlace]]) -> Iterator[LinePlace]:
    """The same places, each with what of its prompt is new after the line before."""
    before = b""
    for key, place in merged:
        shared = shared_depth(before, key) * PREFIX_BYTES
        yield place._replace(prompt_bytes=max(0, place.prompt_bytes - shared))
        before = key


def _next_records(places: Iterator[LinePlace]) -> bytes:
    return b"".join([_RECORD.pack(*place) for place in itertools.islice(places, WRITTEN_LINES)])
