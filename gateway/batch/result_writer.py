"""Writer of a batch's results, so that each line's result counts once, whatever fails when.

Results wait in memory until there are enough of them. Then they become files in the storage, which
count from the moment on at which the database has them: one transaction says which lines they hold,
and adds to the batch's counts. If the process dies before that, these lines run again, and nobody
reads the files; if another worker has taken the batch over, the transaction is refused.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from gateway.batch.line_set import pack_lines
from gateway.batch.result_lines import LineUsage
from gateway.store.batches import BatchPart, PartKind, Progress, add_parts
from gateway.store.database import DatabaseUnavailable
from gateway.store.file_storage import StorageUnavailable
from gateway.store.project_state import ProjectState

PART_BYTES = 4 << 20
PART_LINES = 2000
"""Results after which a part is written, if it is not large by then."""
MAX_AGE_S = 5.0
"""Age of the oldest result that is only in memory."""
RETRY_S = 1.0
FOLDER = "batches"
"""Folder of the storage with all parts and plans."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LineResult:
    """Result of one line."""

    number: int
    kind: PartKind
    data: bytes
    """Line of the output or error file."""
    usage: LineUsage = field(default_factory=LineUsage)
    has_run: bool = True


class ResultWriter:
    """Writer of one batch's results, for the worker that has the batch in this epoch.

    `clock`: seconds, by a clock that never goes back.
    """

    def __init__(
        self,
        state: ProjectState,
        batch_id: str,
        epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._batch_id = batch_id
        self._epoch = epoch
        self._clock = clock
        self._waiting: list[LineResult] = []
        self._writing: list[LineResult] = []
        """Results that are being written; nobody knows yet whether they have been."""
        self._bytes = 0
        self._since_s = 0.0
        self._flushes = 0

    @property
    def due_s(self) -> float | None:
        """When the results that wait should be written, by the clock; None if there are none."""
        return self._since_s + MAX_AGE_S if self._waiting else None

    async def add(self, result: LineResult) -> None:
        """Take a result; if there are enough, write them.

        Raises:
            Superseded: another worker has the batch.
        """
        if not self._waiting:
            self._since_s = self._clock()
        self._waiting.append(result)
        self._bytes += len(result.data)
        if self._bytes >= PART_BYTES or len(self._waiting) >= PART_LINES:
            await self.flush()

    async def flush_due(self) -> None:
        """Write the results that wait if the oldest has waited long enough."""
        if self.due_s is not None and self._clock() >= self.due_s:
            await self.flush()

    async def flush(self) -> None:
        """Write the results that wait, however long storage or database are away.

        If this is cancelled, the next call writes the same once more, which changes nothing if it
        has been written.

        Raises:
            Superseded: another worker has the batch.
        """
        while self._writing or self._waiting:
            if not self._writing:
                self._writing, self._waiting, self._bytes = self._waiting, [], 0
                self._flushes += 1
            await self._write_until_written()
            self._writing = []

    async def _write_until_written(self) -> None:
        while True:
            try:
                await self._write(self._writing)
            except (DatabaseUnavailable, StorageUnavailable) as error:
                logger.warning(
                    "batch %s: results cannot be written, trying again: %s", self._batch_id, error
                )
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _write(self, results: list[LineResult]) -> None:
        parts: list[BatchPart] = []
        for kind in ("output", "error"):
            found = [each for each in results if each.kind == kind]
            if found:
                parts.append(await self._write_part(kind, found))
        progress = _progress(results)
        await self._state.write(
            lambda c: add_parts(c, self._batch_id, self._epoch, parts, progress)
        )

    async def _write_part(self, kind: PartKind, results: list[LineResult]) -> BatchPart:
        key = f"{folder_of(self._batch_id)}/{self._epoch}-{self._flushes}.{kind}"
        data = b"".join([each.data for each in results])
        stored = await self._state.files.write(key, _once(data), len(data))
        lines = pack_lines(each.number for each in results)
        return BatchPart(key=key, kind=kind, lines=lines, bytes=stored.bytes)


def folder_of(batch_id: str) -> str:
    """Folder of the storage with a batch's parts and plan."""
    return f"{FOLDER}/{batch_id}"


def _progress(results: list[LineResult]) -> Progress:
    usage = sum((each.usage for each in results), LineUsage())
    completed = sum(each.kind == "output" for each in results)
    return Progress(
        completed=completed,
        failed=len(results) - completed,
        unanswered=sum(not each.has_run for each in results),
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
