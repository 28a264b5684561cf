"""Upkeep of State: ends what has expired, and deletes bytes that no row names."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from gateway.periodic import Periodic
from gateway.store import files, uploads
from gateway.store.background_responses import LEASE_S, end_abandoned
from gateway.store.database import Transaction
from gateway.store.file_storage import StoredKey
from gateway.store.project_state import ProjectState
from gateway.store.responses import delete_expired_threads, expired_threads
from gateway.store.stored_chats import delete_expired_chats

EXPIRY_PERIOD_S = 60.0
ORPHANS_PERIOD_S = 6 * 3_600.0
MOST = 500
"""Rows that one transaction changes: others wait meanwhile."""
MOST_UPLOADS = 20
"""The same of uploads, each of which may have thousands of parts."""
PAUSE_S = 0.1
TOMBSTONE_S = 30 * 86_400
"""How long rows of what was deleted stay, as places in lists."""
ORPHAN_S = 24 * 3_600
"""Age from which bytes without a row are deleted: younger ones may be about to get one."""

logger = logging.getLogger(__name__)


class StateUpkeep:
    """Periodic work of State, from `start` to `close`."""

    def __init__(self, state: ProjectState) -> None:
        self._state = state
        self._tasks = (
            Periodic("ending what has expired", EXPIRY_PERIOD_S, self.expire),
            Periodic("deleting bytes without a row", ORPHANS_PERIOD_S, self.delete_orphans),
        )

    def start(self) -> None:
        """Begin."""
        for task in self._tasks:
            task.start()

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            await task.close()

    async def expire(self) -> None:
        """End what has expired or takes too long, and forget old rows."""
        state = self._state
        now_s = state.now_s
        while gone := await state.write(lambda c: files.delete_expired_files(c, now_s, MOST)):
            await state.delete_bytes([row.key for row in gone])
        ended = MOST_UPLOADS
        while ended == MOST_UPLOADS:
            ended, parts = await state.write(
                lambda c: uploads.expire_uploads(c, now_s, MOST_UPLOADS)
            )
            await state.delete_bytes([part.key for part in parts])
        before_s = now_s - TOMBSTONE_S
        await self._repeat(lambda c: files.forget_deleted_files(c, before_s, MOST))
        await self._repeat(lambda c: uploads.forget_uploads(c, before_s, MOST))
        if state.taken_s >= LEASE_S:  # until then, routers could not say that they live
            await self._repeat(lambda c: end_abandoned(c, now_s, MOST))
        await self._delete_threads(now_s)
        await self._repeat(lambda c: delete_expired_chats(c, now_s, MOST))

    async def _delete_threads(self, now_s: int) -> None:
        """Delete threads of responses that have expired; to look for them blocks no writer."""
        state = self._state
        while threads := await state.read(lambda c: expired_threads(c, now_s, MOST)):
            delete = partial(delete_expired_threads, threads=threads, now_s=now_s, most=MOST)
            await state.write(delete)
            await asyncio.sleep(PAUSE_S)

    async def delete_orphans(self) -> None:
        """Delete bytes of files and parts that no row names: they were deleted, or never whole."""
        before_s = self._state.now_s - ORPHAN_S
        found = 0
        for folder, existing in (
            (files.FOLDER, files.existing_files),
            (uploads.FOLDER, uploads.existing_parts),
        ):
            keys = await self._state.files.keys(folder)
            old = [each for each in keys if each.modified_s < before_s]
            for begin in range(0, len(old), MOST):
                found += await self._delete_orphans(old[begin : begin + MOST], existing)
        if found:
            logger.info("deleted %d files of the storage that no row of the database names", found)

    async def _delete_orphans(
        self, keys: Sequence[StoredKey], existing: Callable[[Transaction, Sequence[str]], set[str]]
    ) -> int:
        ids = {each.key.rpartition("/")[2]: each.key for each in keys}
        known = await self._state.read(lambda c: existing(c, list(ids)))
        orphans = [key for object_id, key in ids.items() if object_id not in known]
        return await self._state.delete_bytes(orphans)

    async def _repeat(self, work: Callable[[Transaction], int]) -> None:
        while await self._state.write(work):  # noqa: ASYNC110 - a pause for others
            await asyncio.sleep(PAUSE_S)
