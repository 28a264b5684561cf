"""Serve deployment of State: the process that keeps projects' files, batches and responses."""

import asyncio
import contextlib
import logging

import msgspec
import ray
from pydantic import JsonValue
from ray.serve.handle import DeploymentHandle

from deployments.private_server import PrivateServer
from deployments.process_setup import collect_garbage_rarely, log_with_serve
from deployments.state_config import read_state_config
from deployments.watchdog import ReplicaWatchdog
from gateway.http.state.app import StateApp
from gateway.serving.state_location import StateLocation
from gateway.store.opening import open_state
from gateway.store.project_state import ProjectState
from gateway.store.state_upkeep import StateUpkeep

HANG_TIMEOUT_S = 30.0
"""Time after which a State that no longer responds is killed, and replaced."""

logger = logging.getLogger("ray.serve")


class State:
    """Keeper of what belongs to projects; requests that need nothing of it go on without it.

    Only routers reach its server. It answers 503 until its database can be reached.
    """

    async def __init__(  # type: ignore[misc] # Serve awaits this constructor
        self,
        config: dict[str, JsonValue],
        accounts: dict[str, JsonValue] | None = None,
        batches: DeploymentHandle | None = None,  # Serve runs what is named here
    ) -> None:
        log_with_serve()
        self._config = read_state_config(config, accounts)
        self._app = StateApp()
        self._server = PrivateServer(self._app, ray.util.get_node_ip_address(), "State")
        await self._server.start()
        self._state: ProjectState | None = None
        self._upkeep: StateUpkeep | None = None
        self._starting = asyncio.create_task(self._start(), name="state-start")
        collect_garbage_rarely()
        self._watchdog = ReplicaWatchdog("State", HANG_TIMEOUT_S)

    async def locate(self) -> bytes:
        """Where the server is, as a `StateLocation` in msgpack."""
        server = self._server
        return msgspec.msgpack.encode(StateLocation(server.host, server.port, server.key))

    async def check_health(self) -> None:
        """Serve's health check. A database that is gone is none of it: a new process has no other.

        Serve would call a plain function in another thread, which has no event loop.
        """
        self._server.check()
        if self._starting.done():
            self._starting.result()

    async def __del__(self) -> None:
        """Serve's graceful stop."""
        if not hasattr(self, "_watchdog"):
            return
        self._starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self._starting
        await self._server.stop()
        if self._upkeep is not None:
            await self._upkeep.close()
        if self._state is not None:
            await self._state.close()
        await self._watchdog.stop()

    async def _start(self) -> None:
        self._state = await open_state(self._config)
        self._app.open(self._state)
        self._upkeep = StateUpkeep(self._state)
        self._upkeep.start()
        logger.info("State has opened its database")
