"""The parts of Accounts, joined: they run from `start` to `close`."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from gateway.accounts.ledger_writer import LedgerWriter
from gateway.accounts.publisher import ViewPublisher
from gateway.accounts.upkeep import Upkeep
from gateway.accounts.usage_collector import UsageCollector
from gateway.config.accounts import NANO, AccountsConfig
from gateway.ledger.price import Price, PriceList
from gateway.ledger.settlement import Settlement
from gateway.ledger.view import AccountsView
from gateway.metrics import ACCOUNTS_UNWRITABLE, Recorder
from gateway.routing.fleet import Fleet
from gateway.store.database import Database, DatabaseUnavailable
from gateway.store.opening import open_when_reachable, resolved, usable_url
from gateway.store.prices import replace_prices

RETRY_S = 5.0
"""Time after which prices that could not be written are tried again."""

logger = logging.getLogger(__name__)


class LedgerKeeper:
    """Collects usage, writes the ledger and informs routers; one per process.

    `database`: the one that `open_database` has opened. `wall`: the time of day.
    """

    def __init__(
        self,
        database: Database,
        config: AccountsConfig,
        fleet: Fleet,
        recorder: Recorder,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.database = database
        self._config = config
        self._prices = price_list(config)
        self.publisher = ViewPublisher(database, self._prices, wall)
        self._writer = LedgerWriter(database, self._prices, recorder, self.publisher.refresh, wall)
        self.collector = UsageCollector(fleet, self._writer, wall)
        self._upkeep = Upkeep(database, config, self._prices, self.collector, recorder, wall)
        self._writing_prices: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; routers are informed also while nothing can be written."""
        self.publisher.start()
        self._writer.start()
        self._writing_prices = asyncio.create_task(self._write_prices(), name="prices")
        self.collector.start()
        self._upkeep.start()

    async def follow(self, known: str) -> AccountsView:
        """Wait until there is another version than `known`, or a while; return the newest.

        Raises:
            DatabaseUnavailable: nothing has been read yet.
        """
        return await self.publisher.follow(known)

    async def submit(self, settlements: Sequence[Settlement]) -> None:
        """Write what a router has said; returns once it is committed."""
        await self._writer.write_settlements(settlements)

    async def close(self) -> None:
        """Stop, and close the database; what is not committed, engines and routers keep."""
        if self._writing_prices is not None:
            self._writing_prices.cancel()
            await asyncio.wait([self._writing_prices])
        await self._upkeep.close()
        await self.collector.close()
        await self.publisher.close()
        await self._writer.close()
        await self.database.close()

    async def _write_prices(self) -> None:
        """Write the prices of the config, as soon as the database takes them."""
        prices, currency = self._prices.prices, self._config.currency
        while True:
            try:
                await self.database.write(lambda c: replace_prices(c, prices, currency))
            except DatabaseUnavailable as error:
                logger.warning("prices cannot be written yet, trying again: %s", error)
                await asyncio.sleep(RETRY_S)
            else:
                return


def database_url(config: AccountsConfig, environ: Mapping[str, str]) -> str:
    """URL of the database of a config, with what a reference in it stands for.

    Raises:
        ConfigError: it is no URL of a database that we support; the message holds no secret.
    """
    return usable_url(resolved(config.database, ("accounts", "database"), environ), "accounts")


async def open_database(
    config: AccountsConfig, environ: Mapping[str, str], recorder: Recorder
) -> Database:
    """Open the database of a config, however long it cannot be reached; a metric tells.

    Raises:
        ConfigError: the config is wrong, or a reference in it stands for nothing.
    """

    def record(waited_s: float) -> None:
        recorder.set(ACCOUNTS_UNWRITABLE, (), waited_s)
        recorder.flush()

    return await open_when_reachable(database_url(config, environ), "accounts", record)


def price_list(config: AccountsConfig) -> PriceList:
    """Prices of a config, in nano-units."""

    def nano(amount: Decimal | None) -> int | None:
        return None if amount is None else int(amount * NANO)

    return PriceList(
        Price(
            model=model,
            from_s=each.from_s,
            input_nano=nano(each.input),
            cached_input_nano=nano(each.cached_input),
            output_nano=nano(each.output),
            gpu_hour_nano=nano(each.gpu_hour),
        )
        for model, versions in config.prices.items()
        for each in versions
    )
