"""The Serve deployment in front: it chooses a replica for each request and relays its bytes."""

import asyncio
import contextlib
import logging
import os
import time

from pydantic import JsonValue

from deployments.discovery import Discovery, listens_on_loopback
from deployments.garbage import collect_rarely
from deployments.last_config import LastConfig
from deployments.logs import log_with_serve
from deployments.metrics import RayRecorder
from deployments.server import serve_directly
from gateway.asgi import App
from gateway.assembly import RouterOptions, build_router
from gateway.errors import ConfigError
from gateway.routing.fleet import Fleet
from gateway.serving.live_config import LiveConfig
from gateway.serving.tracing import Tracer, tracer_of
from gateway.settings import Settings

CATCH_UP_S = 10.0
"""How long a new router keeps clients waiting to learn of all engines."""

logger = logging.getLogger("ray.serve")


class Router:
    """Holds this process's picture of the fleet, and the HTTP surface that works from it."""

    async def __init__(self) -> None:  # type: ignore[misc] # Serve awaits this constructor
        log_with_serve()
        is_local = await asyncio.to_thread(listens_on_loopback)
        self._settings = Settings.read(os.environ)
        started_s = time.time() - time.monotonic()
        fleet = Fleet()
        fleet.is_settled = False
        self._live_config = LiveConfig(LastConfig(), os.environ)
        self._discovery = Discovery(fleet)
        self._router = build_router(
            fleet,
            self._discovery.wake,
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
        await self._discovery.catch_up(CATCH_UP_S)
        self._following = asyncio.create_task(self._discovery.run())
        collect_rarely()
        if missing := self._settings.missing:
            logger.warning(
                "slower than it could be: set %s=1 where Ray starts", "=1 and ".join(missing)
            )

    async def reconfigure(
        self,
        user_config: dict[str, JsonValue] | None,
        rank: object,  # a method that takes it is called also where there is no `user_config`
    ) -> None:
        """Serve's call with the gateway config, at the start and at every change; drops nothing.

        Serve (Ray 2.60) stops a router that raises here and tries to start others, which raise too.
        """
        await self._live_config.adopt({} if user_config is None else user_config)

    def __serve_build_asgi_app__(self) -> App:
        """Serve's call for the HTTP application, once the constructor is done."""
        gateway = self._router.app
        if self._settings.names_clients:  # otherwise it is Serve's server that finds out
            serve_directly(gateway)
        return gateway.without_ids()

    def check_health(self) -> None:
        """Serve's health check."""
        if self._following.done():
            raise RuntimeError("the router no longer follows the cluster")

    async def __del__(self) -> None:
        """Serve's graceful stop, once the requests in flight are done."""
        if hasattr(self, "_following"):
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
            await self._router.close()


def _tracer() -> Tracer | None:
    try:
        return tracer_of(os.environ)
    except ConfigError as error:
        logger.error("requests are not traced: %s", error)  # noqa: TRY400 - it says where
        return None
