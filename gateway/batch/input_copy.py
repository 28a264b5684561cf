"""Copy of an input file on this machine's disk, from which lines are read in any order."""

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import BinaryIO, Self

from gateway.batch.line_plan import LinePlace
from gateway.batch.temporary_files import disk_errors, temporary_file
from gateway.store.file_storage import FileStorage

BLOCK = 1 << 20


class InputCopy:
    """A temporary file; close it in the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.is_whole = True
        """Whether all of the file has been copied."""

    @classmethod
    async def fetch(cls, storage: FileStorage, key: str, max_bytes: float = math.inf) -> Self:
        """Copy a file out of the storage; of one with more than `max_bytes`, nothing of use.

        Raises:
            FileMissing: it has been deleted.
            StorageUnavailable: it cannot be read, or there is no room for a copy.
        """
        # Opened here: what a thread opens could be lost.
        copy = cls(temporary_file())
        try:
            with disk_errors():
                await copy._fill(storage.read(key), max_bytes)
        except BaseException:
            copy.close()
            raise
        return copy

    async def line(self, place: LinePlace) -> bytes:
        """The bytes of one line."""
        return await self._read(place.length, place.offset)

    async def read(self) -> AsyncIterator[bytes]:
        """The whole file, in blocks."""
        offset = 0
        while block := await self._read(BLOCK, offset):
            yield block
            offset += len(block)

    def close(self) -> None:
        """Delete it."""
        with contextlib.suppress(OSError):  # what is still to be written has no room
            self._file.close()

    async def _fill(self, blocks: AsyncGenerator[bytes, None], max_bytes: float) -> None:
        written = 0
        async with contextlib.aclosing(blocks):
            async for block in blocks:
                written += len(block)
                if written > max_bytes:
                    self.is_whole = False
                    return
                await asyncio.to_thread(self._file.write, block)
        await asyncio.to_thread(self._file.flush)

    async def _read(self, length: int, offset: int) -> bytes:
        with disk_errors():
            return await asyncio.to_thread(os.pread, self._file.fileno(), length, offset)
