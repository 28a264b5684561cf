"""A running gateway with projects in a database, served over HTTP by a thread of its own."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.config.loader import parse_gateway
from gateway.http.organization.app import Administration
from gateway.ledger.settlement import Settlement
from gateway.ledger.view import AccountsView
from gateway.routing.fleet import Fleet
from gateway.serving.admin_call import AdminAnswer, AdminCall
from gateway.serving.live_config import LiveConfig
from gateway.store.changes import directory_version
from gateway.store.database import Database
from gateway.store.directory import directory
from gateway.store.organization import Organization
from tests.unit.served import served

ADMIN_KEY = "an administrator's key, long enough"
POLL_S = 0.02


class StoredAccounts:
    """`AccountsClient` in the router's own process: the admin API and the directory, no usage."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._administration = Administration(Organization(database))

    async def follow(self, known: str) -> AccountsView:
        """The directory, once it has another version."""
        while (version := str(await self._database.read(directory_version))) == known:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        found = await self._database.read(directory)
        return AccountsView(version=version, as_of_s=0.0, directory=found)

    async def submit(self, settlements: Sequence[Settlement]) -> None:
        """Forget what a router says."""

    async def administer(self, call: AdminCall) -> AdminAnswer:
        """Answer a request for the admin API."""
        return await self._administration.administer(call)


@contextmanager
def administered_gateway(database_url: str) -> Iterator[str]:
    """Address of a gateway whose database is at this URL."""
    opened: list[AssembledRouter | Database] = []

    async def make_router() -> AssembledRouter:
        database = await Database.open(database_url)
        live_config = LiveConfig()
        live_config.apply(parse_gateway({"admin_key": ADMIN_KEY, "auth": {}}))
        options = RouterOptions(accounts=StoredAccounts(database))
        router = build_router(Fleet(), lambda *_: None, live_config=live_config, options=options)
        router.start()
        opened.extend([router, database])
        return router

    async def close() -> None:
        for each in opened:
            await each.close()

    with served(make_router, close) as url:
        yield url
