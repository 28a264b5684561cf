"""Accounts collects what engines report."""

import asyncio

from gateway.store.database import Database
from gateway.store.usage import read_watermarks
from tests.unit.accounting import WholeGateway
from tests.unit.conftest import PATIENCE_S


async def test_a_clock_that_is_set_back_does_not_stop_the_collection(
    database: Database, database_url: str
) -> None:
    """The time of day sets no pace."""
    async with WholeGateway(database_url, engines=1, routers=1) as gateway:
        keeper = gateway.accounts.keeper
        assert keeper is not None
        times = iter(range(10**6, 0, -3_600))
        keeper.collector._wall = lambda: next(times)
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(3):
                await gateway.ask(0, {"max_tokens": 2})
                await gateway.until_settled()
    (mark,) = await database.read(read_watermarks)
    assert mark.seq == 3
