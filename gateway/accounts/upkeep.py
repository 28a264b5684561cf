"""Work that Accounts does now and then: presence of replicas, idle time, deletion, metrics."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from gateway.accounts.usage_collector import UsageCollector
from gateway.config.accounts import AccountsConfig
from gateway.ledger.price import PriceList
from gateway.ledger.row import MICRO
from gateway.metrics import (
    ACCOUNTS_DROPPED,
    ACCOUNTS_KEPT,
    ACCOUNTS_LAG,
    ACCOUNTS_UNWRITABLE,
    Recorder,
)
from gateway.periodic import Periodic
from gateway.store.database import Database
from gateway.store.upkeep import HOUR_S, KeptDays, delete_old, record_presence, share_idle_until

PRESENCE_PERIOD_S = 30.0
IDLE_PERIOD_S = 300.0
DELETION_PERIOD_S = 3_600.0
DELETION_PAUSE_S = 0.1
METRICS_PERIOD_S = 5.0
SETTLED_HOURS = 3
"""The current hour and those before it, whose idle time is shared out again: long requests count in
the hour in which they end, and records may be late."""


class Upkeep:
    """Periodic work of Accounts, from `start` to `close`; `wall`: the time of day."""

    def __init__(
        self,
        database: Database,
        config: AccountsConfig,
        prices: PriceList,
        collector: UsageCollector,
        recorder: Recorder,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._weights = config.idle_weights
        days = config.retention
        self._kept = KeptDays(
            days.requests_days, days.minutes_days, days.hours_days, days.days_days
        )
        self._prices = prices
        self._collector = collector
        self._recorder = recorder
        self._wall = wall
        self._dropped: dict[str, int] = {}
        """Records that each engine has dropped, as counted."""
        self._published: set[str] = set()
        self._tasks = (
            Periodic("recording the presence of replicas", PRESENCE_PERIOD_S, self.record_presence),
            Periodic("sharing out idle time", IDLE_PERIOD_S, self.share_idle),
            Periodic("deleting old rows", DELETION_PERIOD_S, self.delete_old),
            Periodic("publishing metrics of Accounts", METRICS_PERIOD_S, self.publish_metrics),
        )

    def start(self) -> None:
        """Begin."""
        for task in self._tasks:
            task.start()

    async def close(self) -> None:
        """Stop, and export the last counts."""
        for task in self._tasks:
            await task.close()
        self._recorder.flush()

    async def record_presence(self) -> None:
        """Record which replicas hold devices now."""
        seen, now_us = self._collector.seen, int(self._wall() * MICRO)
        if seen:
            await self._database.write(lambda c: record_presence(c, seen, now_us))

    async def share_idle(self) -> None:
        """Share out the idle time of the last hours anew."""
        hour_s = int(self._wall()) // HOUR_S * HOUR_S
        await self._database.write(
            lambda c: share_idle_until(c, hour_s, SETTLED_HOURS, self._weights, self._prices)
        )

    async def delete_old(self) -> None:
        """Delete what need not be kept any longer, a little at a time."""
        now_s = int(self._wall())
        while await self._database.write(lambda c: delete_old(c, self._kept, now_s)):  # noqa: ASYNC110
            await asyncio.sleep(DELETION_PAUSE_S)

    async def publish_metrics(self) -> None:
        """Publish what engines keep, and how late the ledger is."""
        kept: Counter[str] = Counter()
        for log in self._collector.logs:
            kept[log.model] += log.kept
            new = log.dropped - self._dropped.get(log.replica.id, 0)
            if new > 0:
                self._recorder.count(ACCOUNTS_DROPPED, (log.model,), new)
        self._dropped = {log.replica.id: log.dropped for log in self._collector.logs}
        for model in self._published | kept.keys():
            self._recorder.set(ACCOUNTS_KEPT, (model,), kept[model])
        self._published = set(kept)
        self._recorder.set(ACCOUNTS_LAG, (), self._collector.lag_s)
        self._recorder.set(ACCOUNTS_UNWRITABLE, (), self._database.unwritable_s)
        self._recorder.flush()
