"""Serve deployment of Batches: runs the lines of all batches, through a router of its own."""

import asyncio
import contextlib
import logging
import os

from pydantic import JsonValue
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.accounts_handle import AccountsHandle
from deployments.discovery import Discovery
from deployments.process_setup import collect_garbage_rarely, log_with_serve, time_since_start
from deployments.serve_internals.config_store import ClusterConfigStore
from deployments.serve_internals.http_options import listens_on_loopback
from deployments.serve_internals.log_folder import serve_log_folder
from deployments.serve_internals.metrics import RayRecorder
from deployments.state_config import read_state_config
from deployments.watchdog import ReplicaWatchdog
from gateway.assembly import RouterOptions, build_router
from gateway.batch.batch_worker import BatchWorker
from gateway.batch.config_follower import ConfigFollower
from gateway.batch.model_rooms import RouterRooms
from gateway.batch.router_caller import RouterCaller
from gateway.identity.cache_scope import SEEDS, ScopeSeeds
from gateway.periodic import Periodic
from gateway.proxy_key import cluster_key
from gateway.routing.fleet import Fleet
from gateway.serving.live_config import LiveConfig
from gateway.serving.trusted_requests import ProjectIdentities
from gateway.store.opening import open_state
from gateway.store.project_state import ProjectState

DISCOVERY_TIMEOUT_S = 10.0
INFORMED_TIMEOUT_S = 2.0
CONFIG_PERIOD_S = 2.0
HANG_TIMEOUT_S = 30.0
"""Time after which a process that no longer responds is killed, and replaced."""

logger = logging.getLogger("ray.serve")


class Batches:
    """One worker for all batches; `config`, `accounts`: those of `State`, `handle`: of Accounts.

    It goes by the gateway config that routers have adopted last.
    """

    async def __init__(  # type: ignore[misc] # Serve awaits this constructor
        self,
        config: dict[str, JsonValue],
        accounts: dict[str, JsonValue] | None = None,
        handle: DeploymentHandle | None = None,
    ) -> None:
        log_with_serve()
        self._config = read_state_config(config, accounts)
        self._id = serve.get_replica_context().replica_id.unique_id
        is_local = await asyncio.to_thread(listens_on_loopback)
        self._recorder = RayRecorder()
        fleet = Fleet()
        fleet.is_settled = False
        self._live_config = LiveConfig(environ=os.environ, needs_auth=not is_local)
        self._follower = ConfigFollower(ClusterConfigStore().recall, self._live_config)
        self._discovery = Discovery(fleet)
        self._router = build_router(
            fleet,
            self._discovery.request_start,
            live_config=self._live_config,
            options=RouterOptions(
                router=self._id,
                is_local=is_local,
                trusts_requests=True,
                seeds=ScopeSeeds(cluster_key(SEEDS, os.environ)),
                recorder=self._recorder,
                log_folder=serve_log_folder(),
                accounts=None if handle is None else AccountsHandle(handle),
                time_of_day=time_since_start(),
            ),
        )
        self._router.start()
        await self._discovery.wait_until_complete(DISCOVERY_TIMEOUT_S)
        self._discovering = asyncio.create_task(self._discovery.run(), name="discovery")
        self._following = Periodic("the gateway config", CONFIG_PERIOD_S, self._follower.follow)
        self._state: ProjectState | None = None
        self._worker: BatchWorker | None = None
        self._starting = asyncio.create_task(self._start(), name="batches-start")
        collect_garbage_rarely()
        self._watchdog = ReplicaWatchdog(f"batches {self._id}", HANG_TIMEOUT_S)

    async def check_health(self) -> None:
        """Serve's health check. A database that is gone is none of it: a new process has no other.

        Serve would call a plain function in another thread, which has no event loop.
        """
        if self._discovering.done():
            raise RuntimeError("discovery has ended: Batches no longer learns of new engines")
        if self._starting.done():
            self._starting.result()

    async def __del__(self) -> None:
        """Serve's graceful stop: another worker goes on with all batches."""
        if not hasattr(self, "_watchdog"):
            return
        for task in (self._starting, self._discovering):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        await self._following.close()
        if self._worker is not None:
            await self._worker.close()
        if self._state is not None:
            await self._state.close()
        await self._router.close()
        await self._watchdog.stop()

    async def _start(self) -> None:
        state = self._state = await open_state(self._config)
        self._following.start()
        await self._follower.wait_for_first()
        await self._router.wait_until_informed(INFORMED_TIMEOUT_S)
        router, live_config = self._router, self._live_config
        worker = BatchWorker(
            state,
            RouterCaller(
                router.app, ProjectIdentities(live_config), live_config, router.resolver.model
            ),
            RouterRooms(router.fleet, router.pools, live_config),
            self._config.batches,
            self._id,
            self._recorder,
        )
        worker.start()
        self._worker = worker
        logger.info("Batches has opened its database")
