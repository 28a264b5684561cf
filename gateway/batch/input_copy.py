"""Copy of an input file on this machine's disk, from which lines are read in any order."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from typing import BinaryIO, Self

from gateway.batch.line_plan import LinePlace
from gateway.store.file_storage import FileStorage

BLOCK = 1 << 20


class InputCopy:
    """A temporary file; close it in the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @classmethod
    async def fetch(cls, storage: FileStorage, key: str) -> Self:
        """Copy a file out of the storage.

        Raises:
            FileMissing: it has been deleted.
            StorageUnavailable: it cannot be read.
        """
        # Opened here: what a thread opens could be lost.
        copy = cls(tempfile.TemporaryFile())  # noqa: SIM115 - `close` closes it
        try:
            async for block in storage.read(key):
                await asyncio.to_thread(copy._file.write, block)
            await asyncio.to_thread(copy._file.flush)
        except BaseException:
            copy.close()
            raise
        return copy

    async def line(self, place: LinePlace) -> bytes:
        """The bytes of one line."""
        number = self._file.fileno()
        return await asyncio.to_thread(os.pread, number, place.length, place.offset)

    async def read(self) -> AsyncIterator[bytes]:
        """The whole file, in blocks."""
        offset = 0
        while block := await asyncio.to_thread(os.pread, self._file.fileno(), BLOCK, offset):
            yield block
            offset += len(block)

    def close(self) -> None:
        """Delete it."""
        self._file.close()
