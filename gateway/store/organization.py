"""The organization in the database: what the admin API reads and changes."""

import time
from collections.abc import Callable
from typing import TypeVar

from gateway.store.changes import Actor, Change
from gateway.store.database import Database, Transaction
from gateway.store.key_use import record_admin_key_use

T = TypeVar("T")


class Organization:
    """Runs the work of the admin API in transactions.

    `clock`: the time of day.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    @property
    def now_s(self) -> int:
        """The time, in Unix seconds."""
        return int(self._clock())

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run work that only reads."""
        return await self._database.read(work)

    async def change(self, actor: Actor, work: Callable[[Change], T]) -> T:
        """Run work that changes something, in one transaction with its audit log."""
        now_s = self.now_s
        return await self._database.write(lambda connection: work(Change(connection, actor, now_s)))

    async def record_admin_key_use(self, key_id: str) -> None:
        """Note that an admin key has been used now."""
        now_s = self.now_s
        await self._database.write(lambda c: record_admin_key_use(c, key_id, now_s))
