"""Writes usage and settlements into the database, several in one transaction.

What comes while a transaction runs waits for the next one. While the database cannot be reached,
the same transaction is tried again: writing is idempotent, so an answer that was lost does no harm.
An item that cannot be written is tried alone, and rejected: it must not hold up all others.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from gateway.ledger.price import PriceList
from gateway.ledger.row import MICRO
from gateway.ledger.settlement import Settlement
from gateway.metrics import ACCOUNTS_REJECTED, ACCOUNTS_ROWS, Recorder
from gateway.store.database import Database, DatabaseUnavailable, Transaction
from gateway.store.usage import EngineBatch, Written, write_settlements, write_usage

MIN_DELAY_S = 0.1
MAX_DELAY_S = 5.0
REMINDER_S = 60.0
"""Time between two lines of the log while the database cannot be used."""

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _PendingWrite:
    """What one caller waits for."""

    batch: EngineBatch | None
    settlements: Sequence[Settlement]
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class LedgerWriter:
    """Writer of the ledger; runs from `start` to `close`.

    `on_written` is called after each transaction. `wall`: the time of day.
    """

    def __init__(
        self,
        database: Database,
        prices: PriceList,
        recorder: Recorder,
        on_written: Callable[[], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._prices = prices
        self._recorder = recorder
        self._on_written = on_written
        self._wall = wall
        self._items: list[_PendingWrite] = []
        self._has_items = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.unavailable_since_s: float | None = None
        """Since when the database cannot be reached, by the event loop's clock."""
        self._warned_s = 0.0

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="ledger-writer")

    async def close(self) -> None:
        """Stop; what has not been written is the engines' and routers' to keep."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def write_batch(self, batch: EngineBatch) -> None:
        """Write records of an engine; returns once they are committed, or rejected."""
        await self._write(_PendingWrite(batch, ()))

    async def write_settlements(self, settlements: Sequence[Settlement]) -> None:
        """Write what a router has said; returns once it is committed, or rejected."""
        await self._write(_PendingWrite(None, settlements))

    async def _write(self, item: _PendingWrite) -> None:
        self._items.append(item)
        self._has_items.set()
        await item.done

    async def _run(self) -> None:
        while True:
            await self._has_items.wait()
            self._has_items.clear()
            items, self._items = self._items, []
            await self._write_all([item for item in items if not item.done.cancelled()])
            for item in items:
                if not item.done.done():
                    item.done.set_result(None)

    async def _write_all(self, items: Sequence[_PendingWrite]) -> None:
        try:
            written = await self._commit(items)
        except Exception:
            if len(items) > 1:
                for item in items:
                    await self._write_all([item])
            elif items and (parts := _parts(items[0])):
                for part in parts:
                    await self._write_all([part])
            elif items:
                logger.exception("the ledger cannot take this record, which is lost: %r", items[0])
                self._recorder.count(ACCOUNTS_REJECTED, ())
            return
        self._count(written)

    async def _commit(self, items: Sequence[_PendingWrite]) -> Written:
        """Write items in one transaction, however long the database cannot be reached."""
        delay_s = MIN_DELAY_S
        while True:
            try:
                written = await self._database.write(partial(self._work, items))
            except DatabaseUnavailable as error:
                self._record_unavailable(error)
                await asyncio.sleep(delay_s)
                delay_s = min(MAX_DELAY_S, 2 * delay_s)
            else:
                self._record_available()
                return written

    def _work(self, items: Sequence[_PendingWrite], connection: Transaction) -> Written:
        now_us = int(self._wall() * MICRO)
        batches = [item.batch for item in items if item.batch is not None]
        settlements = [each for item in items for each in item.settlements]
        usage = write_usage(connection, batches, self._prices, now_us)
        settled = write_settlements(connection, settlements, self._prices, now_us)
        return Written(usage.rows + settled.rows, usage.known + settled.known, settled.estimated)

    def _count(self, written: Written) -> None:
        for kind, count in (
            ("estimated", written.estimated),
            ("engine", written.rows - written.estimated),
            ("known", written.known),
        ):
            if count:
                self._recorder.count(ACCOUNTS_ROWS, (kind,), count)
        self._on_written()

    def _record_unavailable(self, error: DatabaseUnavailable) -> None:
        now_s = asyncio.get_running_loop().time()
        if self.unavailable_since_s is None:
            self.unavailable_since_s, self._warned_s = now_s, float("-inf")
        if now_s - self._warned_s >= REMINDER_S:
            self._warned_s = now_s
            logger.error(
                "the database has taken nothing for %.0f s; engines keep their records: %s",
                *(now_s - self.unavailable_since_s, error),
            )

    def _record_available(self) -> None:
        if self.unavailable_since_s is not None:
            self.unavailable_since_s = None
            logger.info("the database can be used again")


def _parts(item: _PendingWrite) -> list[_PendingWrite]:
    """The records or settlements of an item, each as an item; none if it is only one."""
    batch = item.batch
    if batch is not None and len(batch.records) > 1:
        return [
            _PendingWrite(EngineBatch(batch.engine, batch.epoch, [record]), ())
            for record in batch.records
        ]
    if len(item.settlements) > 1:
        return [_PendingWrite(None, [each]) for each in item.settlements]
    return []
