"""A running gateway with projects in a database, served over HTTP by a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn

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
from tests.unit.conftest import PATIENCE_S

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


class GatewayThread:
    """The thread; `url` is the gateway's address once `is_up` is set."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.is_up = threading.Event()
        self.url = ""

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()
        if not self.is_up.wait(PATIENCE_S):
            raise TimeoutError

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join()

    async def _run(self) -> None:
        database = await Database.open(self._database_url)
        router = self._router(database)
        router.start()
        config = uvicorn.Config(router.app, port=0, log_level="critical")
        self._server = uvicorn.Server(config)
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(POLL_S)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.is_up.set()
        await serving
        await router.close()
        await database.close()

    def _router(self, database: Database) -> AssembledRouter:
        live_config = LiveConfig()
        live_config.apply(parse_gateway({"admin_key": ADMIN_KEY, "auth": {}}))
        options = RouterOptions(accounts=StoredAccounts(database))
        return build_router(Fleet(), lambda *_: None, live_config=live_config, options=options)


@contextmanager
def administered_gateway(database_url: str) -> Iterator[str]:
    """Address of a gateway whose database is at this URL."""
    thread = GatewayThread(database_url)
    thread.start()
    try:
        yield thread.url
    finally:
        thread.stop()
