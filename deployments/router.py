"""Serve deployment of a router, which chooses a replica for each request and relays its bytes."""

import asyncio
import contextlib
import logging
import os

import msgspec
from pydantic import JsonValue
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.accounts_handle import AccountsHandle
from deployments.discovery import Discovery
from deployments.process_setup import (
    collect_garbage_rarely,
    log_with_serve,
    short_config_errors,
    time_since_start,
)
from deployments.router_peers import Answer, ServeRouterPeers
from deployments.serve_internals.config_store import ClusterConfigStore
from deployments.serve_internals.haproxy_report import report_of_this_node
from deployments.serve_internals.http_options import listens_on_loopback
from deployments.serve_internals.log_folder import serve_log_folder
from deployments.serve_internals.metrics import RayRecorder
from deployments.serve_internals.router_protocol import install_router_protocol
from deployments.state_handle import StateHandle
from deployments.watchdog import ReplicaWatchdog
from gateway.asgi import App
from gateway.assembly import RouterOptions, build_router
from gateway.environment import Settings
from gateway.errors.startup import ConfigError
from gateway.identity.cache_scope import SEEDS, ScopeSeeds
from gateway.inspection.query import decode_query, encode_rows
from gateway.periodic import Periodic
from gateway.proxy_key import cluster_key, proxy_key
from gateway.routing.fleet import Fleet
from gateway.serving.connection_check import ConnectionCheck
from gateway.serving.http_state_client import HttpStateClient
from gateway.serving.live_config import LiveConfig
from gateway.serving.tracing import Tracer, tracer_of

DISCOVERY_TIMEOUT_S = 30.0
"""Time that a new router lets clients wait until it knows all engines."""
INFORMED_TIMEOUT_S = 2.0
"""Time that it then lets them wait for what engines and Accounts know of the last minute."""
HAPROXY_PERIOD_S = 5.0
HANG_TIMEOUT_S = 30.0
"""Time after which a router that no longer responds is killed, and replaced."""

logger = logging.getLogger("ray.serve")


class Router:
    """One router: what it knows of all models and replicas, and its HTTP application."""

    async def __init__(  # type: ignore[misc] # Serve awaits this constructor
        self,
        accounts: DeploymentHandle | None = None,
        state: DeploymentHandle | None = None,
        *,
        keeps_responses: bool = True,
    ) -> None:
        log_with_serve()
        context = serve.get_replica_context()
        self._id = context.replica_id.unique_id
        is_local = await asyncio.to_thread(listens_on_loopback)
        self._settings = Settings.read(os.environ)
        recorder = RayRecorder()
        fleet = Fleet()
        fleet.is_settled = False
        self._live_config = LiveConfig(ClusterConfigStore(), os.environ, needs_auth=not is_local)
        self._discovery = Discovery(fleet)
        self._state = None if state is None else HttpStateClient(StateHandle(state))
        self._router = build_router(
            fleet,
            self._discovery.request_start,
            live_config=self._live_config,
            options=RouterOptions(
                router=self._id,
                is_local=is_local,
                is_forwarded=self._settings.names_clients,
                proxy_key=self._proxy_key(),
                seeds=ScopeSeeds(cluster_key(SEEDS, os.environ)),
                recorder=recorder,
                tracer=_tracer(),
                peers=ServeRouterPeers(
                    self._id,
                    lambda: self._discovery.running(context.app_name, context.deployment),
                ),
                log_folder=serve_log_folder(),
                accounts=None if accounts is None else AccountsHandle(accounts),
                state=self._state,
                keeps_responses=keeps_responses,
                time_of_day=time_since_start(),
            ),
        )
        self._haproxy = (
            report_of_this_node(recorder, os.environ) if self._settings.names_clients else None
        )
        self._connections = ConnectionCheck(fleet)
        self._reporting = Periodic("reading HAProxy's counts", HAPROXY_PERIOD_S, self._report)
        self._reporting.start()
        self._router.start()
        # Serve sends requests from here on, also to a router that replaces another under load.
        await self._discovery.wait_until_complete(DISCOVERY_TIMEOUT_S)
        await self._router.wait_until_informed(INFORMED_TIMEOUT_S)
        self._discovering = asyncio.create_task(self._discovery.run())
        collect_garbage_rarely()
        self._watchdog = ReplicaWatchdog(f"router {self._id}", HANG_TIMEOUT_S)
        if missing := self._settings.missing:
            logger.warning(
                "this router is slower than necessary: set %s=1 where Ray starts",
                "=1 and ".join(missing),
            )

    def _proxy_key(self) -> str:
        """Key of HAProxy, where it is in front; it and this process have the cluster's token."""
        if not self._settings.names_clients:
            return ""
        key = proxy_key(os.environ)
        if not key:
            logger.warning(
                "whoever reaches this router's port can send it requests, with any address as"
                " client: set RAY_AUTH_MODE=token where Ray starts"
            )
        return key

    async def reconfigure(
        self,
        user_config: dict[str, JsonValue] | None,
        rank: object,  # Serve calls a method with this parameter even without a `user_config`
    ) -> None:
        """Serve's call with the gateway config, at the start and at every change; drops no request.

        Serve (Ray 2.60) stops a router that raises here and tries to start others, which raise too.
        """
        with short_config_errors():
            await self._live_config.adopt({} if user_config is None else user_config)

    def __serve_build_asgi_app__(self) -> App:
        """Serve's call for the HTTP application, once the constructor is done."""
        gateway = self._router.app
        if self._settings.names_clients:  # otherwise only Serve's server notices clients that leave
            install_router_protocol(gateway)
        return gateway.without_ids()

    async def _report(self) -> None:
        if self._haproxy is not None:
            reading = await asyncio.to_thread(self._haproxy.read)
            if reading is not None:
                self._haproxy.publish(reading)
                routers = serve.get_replica_context().world_size
                self._connections.check(reading.limit, routers)

    def check_health(self) -> None:
        """Serve's health check."""
        if self._discovering.done():
            raise RuntimeError("discovery has ended: this router no longer learns of new replicas")

    async def drain(self, timeout_s: float) -> int:
        """End all requests within `timeout_s`: the whole gateway stops; how many were cut off."""
        return await self._router.drain(timeout_s)

    async def inspect(self, asker: str, query: bytes) -> Answer:
        """What this router says of itself, for the router `asker`; nothing if that is this one."""
        if asker == self._id:
            return self._id, None
        rows = await self._router.inspector.rows(decode_query(query))
        return self._id, encode_rows(rows)

    def report(self) -> dict[str, object]:
        """This router's id, and its `RouterReport` as plain objects."""
        report = msgspec.to_builtins(self._router.report())
        return {"replica": self._id, "report": report}

    async def __del__(self) -> None:
        """Serve's graceful stop, once the requests in flight are done."""
        if hasattr(self, "_discovering"):
            self._discovering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._discovering
            await self._reporting.close()
            if self._haproxy is not None:
                self._haproxy.close()
            await self._router.close()
            if self._state is not None:
                await self._state.close()
            await self._watchdog.stop()


def _tracer() -> Tracer | None:
    try:
        return tracer_of(os.environ)
    except ConfigError as error:
        logger.error("tracing is off: %s", error)  # noqa: TRY400 - the message names the field
        return None
