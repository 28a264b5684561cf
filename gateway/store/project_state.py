"""What belongs to projects: rows in the database, and the bytes of files."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from gateway.config.state import StateConfig
from gateway.store.database import Database, DatabaseUnavailable, Transaction
from gateway.store.file_storage import FileStorage, StorageUnavailable

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ProjectState:
    """Database and storage of State and of Batches, which both write.

    `clock`: the time of day.
    """

    def __init__(
        self,
        database: Database,
        files: FileStorage,
        config: StateConfig,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = database
        self.files = files
        self.config = config
        self._clock = clock
        self._taken_since_s: int | None = self.now_s

    @property
    def now_s(self) -> int:
        """The time, in Unix seconds."""
        return int(self._clock())

    @property
    def taken_s(self) -> int:
        """For how long this process has taken what it is told: its age, or that of its database."""
        since_s = self._taken_since_s
        return 0 if since_s is None else self.now_s - since_s

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run a transaction that only reads.

        Raises:
            DatabaseUnavailable: it could not be run.
        """
        return await self.database.read(work)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run a transaction that writes; it is committed once this returns.

        Raises:
            DatabaseUnavailable: it could not be run.
        """
        try:
            result = await self.database.write(work)
        except DatabaseUnavailable:
            self._taken_since_s = None
            raise
        if self._taken_since_s is None:
            self._taken_since_s = self.now_s
        return result

    async def delete_bytes(self, keys: Iterable[str]) -> int:
        """Delete bytes that no row names, even if this is cancelled; how many files they were.

        If the storage does not do it now, upkeep will (`StateUpkeep.delete_orphans`).
        """
        return await asyncio.shield(self._delete_bytes(keys))

    async def _delete_bytes(self, keys: Iterable[str]) -> int:
        count = 0
        try:
            for key in keys:
                await self.files.delete(key)
                count += 1
        except StorageUnavailable as error:
            logger.warning("bytes that no row names cannot be deleted yet: %s", error)
        return count

    async def close(self) -> None:
        """Wait for what runs, and close database and storage."""
        await self.files.close()
        await self.database.close()
