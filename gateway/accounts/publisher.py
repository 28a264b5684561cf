"""Publishes the state of Accounts to routers, which follow it by long polls."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable

import msgspec

from gateway.identity.project import Directory
from gateway.ledger.price import PriceList
from gateway.ledger.view import AccountsView
from gateway.store.changes import database_id, directory_version
from gateway.store.database import Database, DatabaseUnavailable, Transaction
from gateway.store.directory import directory as read_directory
from gateway.store.routers_view import read_batch, read_minutes, read_spend
from gateway.store.usage import read_watermarks

LONGEST_WAIT_S = 10.0
PERIOD_S = 0.5
"""Least time between two readings of the database."""
IDLE_PERIOD_S = 5.0
"""Most time between them: another process may have written."""
WATERMARK_AGE_S = 3_600
"""Engines that have been silent for longer need no watermark."""

logger = logging.getLogger(__name__)


class ViewPublisher:
    """Newest `AccountsView`, from `start` to `close`; `wall`: the time of day."""

    def __init__(
        self,
        database: Database,
        prices: PriceList,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._prices = prices
        self._wall = wall
        self._boot = uuid.uuid4().hex
        self._directory = Directory()
        self._directory_version = -1
        self._number = 0
        self._view: AccountsView | None = None
        self._is_reading = asyncio.Lock()
        self._is_stale = asyncio.Event()
        self._is_changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read the database."""
        self._task = asyncio.create_task(self._run(), name="accounts-view")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def refresh(self) -> None:
        """Have the database read soon: it has changed."""
        self._is_stale.set()

    async def publish_now(self) -> int:
        """Read the database, and publish what has changed; the number of changes it includes.

        Raises:
            DatabaseUnavailable: it cannot be read.
        """
        async with self._is_reading:
            await self._publish(await self._database.read(self._read))
            return self._directory_version

    async def follow(self, known: str) -> AccountsView:
        """Wait until there is another version than `known`, or a while; return the newest.

        Raises:
            DatabaseUnavailable: it has not been read yet.
        """
        async with self._is_changed:
            try:
                async with asyncio.timeout(LONGEST_WAIT_S):
                    await self._is_changed.wait_for(
                        lambda: self._view is not None and self._view.version != known
                    )
            except TimeoutError:
                if self._view is None:
                    raise DatabaseUnavailable("the database has not been read yet") from None
        view = self._view
        if view is None:
            raise DatabaseUnavailable("the database has not been read yet")
        is_known = known.rpartition(".")[0] == view.version.rpartition(".")[0]
        return msgspec.structs.replace(view, directory=None) if is_known else view

    async def _run(self) -> None:
        while True:
            self._is_stale.clear()
            try:
                await self.publish_now()
            except DatabaseUnavailable:
                pass  # the writer logs it
            except Exception:
                logger.exception("what routers follow cannot be read; trying again")
            await asyncio.sleep(PERIOD_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_PERIOD_S):
                    await self._is_stale.wait()

    def _read(self, connection: Transaction) -> AccountsView:
        now_s = self._wall()
        if (version := directory_version(connection)) != self._directory_version:
            self._directory, self._directory_version = read_directory(connection), version
        return AccountsView(
            version="",
            as_of_s=now_s,
            directory=self._directory,
            changes=self._directory_version,
            watermarks=read_watermarks(connection, int((now_s - WATERMARK_AGE_S) * 1e6)),
            spend=read_spend(connection, now_s),
            minutes=read_minutes(connection, now_s),
            batch=read_batch(connection, now_s),
            prices=self._prices.prices,
            database=database_id(connection),
        )

    async def _publish(self, view: AccountsView) -> None:
        old = self._view
        changed = {"version": old.version, "as_of_s": old.as_of_s} if old else {}
        if old is not None and msgspec.structs.replace(view, **changed) == old:
            self._view = msgspec.structs.replace(old, as_of_s=view.as_of_s)
            return
        self._number += 1
        version = f"{self._boot}.{self._directory_version}.{self._number}"
        async with self._is_changed:
            self._view = msgspec.structs.replace(view, version=version)
            self._is_changed.notify_all()
