"""Serve deployment of Accounts: the one process that writes the database of projects and usage."""

import asyncio
import contextlib
import logging
import os

import msgspec
from pydantic import JsonValue

from deployments.discovery import Discovery
from deployments.process_setup import log_with_serve, short_config_errors
from deployments.serve_internals.metrics import RayRecorder
from gateway.accounts.keeper import LedgerKeeper, database_url, open_database
from gateway.config.loader import parse_accounts
from gateway.http.organization.app import Administration
from gateway.ledger.settlement import Settlement
from gateway.routing.fleet import Fleet
from gateway.serving.admin_call import AdminCall
from gateway.store.database import DatabaseUnavailable
from gateway.store.organization import Organization

logger = logging.getLogger("ray.serve")


class Accounts:
    """Keeper of projects, keys and usage; the rest of the gateway does without it for a while.

    Calls and answers are msgpack, so that a router of another version of the gateway can read them.
    """

    async def __init__(self, config: dict[str, JsonValue]) -> None:  # type: ignore[misc] # Serve awaits it
        log_with_serve()
        with short_config_errors():
            self._config = parse_accounts(config)
            database_url(self._config, os.environ)
        self._fleet = Fleet()
        self._discovery = Discovery(self._fleet)
        self._recorder = RayRecorder()
        self._keeper: LedgerKeeper | None = None
        self._starting = asyncio.create_task(self._start(), name="accounts-start")
        self._discovering = asyncio.create_task(self._discovery.run(), name="discovery")
        self._settlements = msgspec.msgpack.Decoder(list[Settlement])
        self._calls = msgspec.msgpack.Decoder(AdminCall)

    async def follow(self, known: str) -> bytes:
        """Newest `AccountsView`, once it has another version than `known`, or after a while."""
        return msgspec.msgpack.encode(await self._running.follow(known))

    async def submit(self, settlements: bytes) -> None:
        """Write what a router has said; returns once it is committed."""
        await self._running.submit(self._settlements.decode(settlements))

    async def administer(self, call: bytes) -> bytes:
        """Have the admin API answer an `AdminCall`, whose sender a router has authenticated."""
        keeper, request = self._running, self._calls.decode(call)
        answer = await self._administration.administer(request)
        if request.method != "GET":
            with contextlib.suppress(DatabaseUnavailable):
                changes = await keeper.publisher.publish_now()
                answer = msgspec.structs.replace(answer, changes=changes)
        return msgspec.msgpack.encode(answer)

    async def check_health(self) -> None:
        """Serve's health check. A database that is gone is none of it: a new process has no other.

        Serve would call a plain function in another thread, which has no event loop.
        """
        if self._discovering.done():
            raise RuntimeError("discovery has ended: Accounts no longer learns of new engines")
        if self._starting.done():
            self._starting.result()

    async def __del__(self) -> None:
        """Serve's graceful stop."""
        if not hasattr(self, "_discovering"):
            return
        for task in (self._starting, self._discovering):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        if self._keeper is not None:
            await self._keeper.close()

    @property
    def _running(self) -> LedgerKeeper:
        if self._keeper is None:
            raise DatabaseUnavailable("the database has not been opened yet")
        return self._keeper

    async def _start(self) -> None:
        database = await open_database(self._config, os.environ, self._recorder)
        keeper = LedgerKeeper(database, self._config, self._fleet, self._recorder)
        keeper.start()
        self._administration = Administration(Organization(database), self._config.currency)
        self._keeper = keeper
        logger.info("Accounts has opened its database")
