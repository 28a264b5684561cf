"""Serve deployment of a router, which chooses a replica for each request and relays its bytes."""

import asyncio
import contextlib
import logging
import os
import sys
import time

from pydantic import JsonValue

from deployments.discovery import Discovery
from deployments.process_setup import collect_garbage_rarely, log_with_serve
from deployments.serve_internals.config_store import ClusterConfigStore
from deployments.serve_internals.http_options import listens_on_loopback
from deployments.serve_internals.metrics import RayRecorder
from deployments.serve_internals.router_protocol import install_router_protocol
from gateway.asgi import App
from gateway.assembly import RouterOptions, build_router
from gateway.environment import Settings
from gateway.errors import ConfigError
from gateway.routing.fleet import Fleet
from gateway.serving.live_config import LiveConfig
from gateway.serving.tracing import Tracer, tracer_of

DISCOVERY_TIMEOUT_S = 10.0
"""Time that a new router lets clients wait until it knows all engines."""

logger = logging.getLogger("ray.serve")


class Router:
    """One router: what it knows of all models and replicas, and its HTTP application."""

    async def __init__(self) -> None:  # type: ignore[misc] # Serve awaits this constructor
        log_with_serve()
        is_local = await asyncio.to_thread(listens_on_loopback)
        self._settings = Settings.read(os.environ)
        started_s = time.time() - time.monotonic()
        fleet = Fleet()
        fleet.is_settled = False
        self._live_config = LiveConfig(ClusterConfigStore(), os.environ)
        self._discovery = Discovery(fleet)
        self._router = build_router(
            fleet,
            self._discovery.request_start,
            live_config=self._live_config,
            options=RouterOptions(
                is_local=is_local,
                is_forwarded=self._settings.names_clients,
                recorder=RayRecorder(),
                tracer=_tracer(),
                # The time of day, without any adjustment of the clock since the start.
                time_of_day=lambda: started_s + time.monotonic(),
            ),
        )
        self._router.start()
        # Serve sends requests from here on, also to a router that replaces another under load.
        await self._discovery.wait_until_complete(DISCOVERY_TIMEOUT_S)
        self._discovering = asyncio.create_task(self._discovery.run())
        collect_garbage_rarely()
        if missing := self._settings.missing:
            logger.warning(
                "this router is slower than necessary: set %s=1 where Ray starts",
                "=1 and ".join(missing),
            )

    async def reconfigure(
        self,
        user_config: dict[str, JsonValue] | None,
        rank: object,  # Serve calls a method with this parameter even without a `user_config`
    ) -> None:
        """Serve's call with the gateway config, at the start and at every change; drops no request.

        Serve (Ray 2.60) stops a router that raises here and tries to start others, which raise too.
        """
        try:
            await self._live_config.adopt({} if user_config is None else user_config)
        except ConfigError:
            # Serve shows the whole traceback as its message, and stops this process.
            sys.tracebacklimit = 0
            raise

    def __serve_build_asgi_app__(self) -> App:
        """Serve's call for the HTTP application, once the constructor is done."""
        gateway = self._router.app
        if self._settings.names_clients:  # otherwise only Serve's server notices clients that leave
            install_router_protocol(gateway)
        return gateway.without_ids()

    def check_health(self) -> None:
        """Serve's health check."""
        if self._discovering.done():
            raise RuntimeError("discovery has ended: this router no longer learns of new replicas")

    async def __del__(self) -> None:
        """Serve's graceful stop, once the requests in flight are done."""
        if hasattr(self, "_discovering"):
            self._discovering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._discovering
            await self._router.close()


def _tracer() -> Tracer | None:
    try:
        return tracer_of(os.environ)
    except ConfigError as error:
        logger.error("tracing is off: %s", error)  # noqa: TRY400 - the message names the field
        return None
