"""Serve deployment of a router, which chooses a replica for each request and relays its bytes."""

import asyncio
import contextlib
import logging
import os
import random
import time

from pydantic import JsonValue

from deployments.discovery import Discovery
from deployments.process_setup import collect_garbage_rarely, log_with_serve
from deployments.serve_internals.config_store import ClusterConfigStore
from deployments.serve_internals.http_options import listens_on_loopback
from deployments.serve_internals.metrics import RayRecorder
from deployments.serve_internals.router_protocol import install_router_protocol
from gateway.admission.admissions import Admissions
from gateway.admission.cold_start import ColdStarts
from gateway.asgi import App
from gateway.environment import Settings
from gateway.errors import ConfigError
from gateway.faults import Faults
from gateway.http.app import create_app
from gateway.routing.fleet import Fleet
from gateway.routing.schedulers import Schedulers
from gateway.serving.attempts import RouterContext
from gateway.serving.config_adoption import ConfigAdoption
from gateway.serving.demand_publisher import DemandPublisher
from gateway.serving.gauges import Gauges
from gateway.serving.live_config import LiveConfig
from gateway.serving.operator_access import OperatorAccess
from gateway.serving.request_metrics import RequestMetrics
from gateway.serving.telemetry_client import TelemetryClient
from gateway.serving.tracing import Tracer, tracer_of
from gateway.upstream.client import UpstreamClient
from gateway.upstream.engine_call import EngineClient

DISCOVERY_TIMEOUT_S = 10.0
"""How long a new router lets clients wait until it knows all engines."""

logger = logging.getLogger("ray.serve")


class Router:
    """One router: what it knows of all models and replicas, and its HTTP application."""

    async def __init__(self) -> None:  # type: ignore[misc] # Serve awaits this constructor
        log_with_serve()
        is_local = await asyncio.to_thread(listens_on_loopback)
        self._live_config = LiveConfig(access=OperatorAccess(is_local=is_local))
        self._adoption = ConfigAdoption(self._live_config, ClusterConfigStore(), os.environ)
        self._fleet = Fleet()
        self._fleet.is_settled = False
        rng = random.Random()  # noqa: S311 - it breaks ties and keeps no secret
        started_s = time.time() - time.monotonic()

        def now() -> float:
            """Time of day, without any adjustment of the clock since the start."""
            return started_s + time.monotonic()

        self._schedulers = Schedulers(self._fleet, rng, now)
        self._upstream = UpstreamClient()
        self._telemetry_client = TelemetryClient(
            self._fleet, self._schedulers, self._upstream, now, rng
        )
        self._telemetry_client.start()
        self._admissions = Admissions(self._fleet, self._schedulers, time.monotonic)
        self._demand_publisher = DemandPublisher(lambda: self._admissions.demands)
        self._demand_publisher.start()
        self._discovery = Discovery(self._fleet)
        self._cold_starts = ColdStarts(self._fleet, self._discovery.request_start)
        self._request_metrics = RequestMetrics(RayRecorder(), _tracer())
        self._gauges = Gauges(
            self._fleet,
            self._schedulers,
            self._admissions,
            self._cold_starts,
            self._request_metrics.recorder,
        )
        self._gauges.start()
        # Serve sends requests from here on, also to a router that replaces another under load.
        await self._discovery.wait_until_complete(DISCOVERY_TIMEOUT_S)
        self._discovering = asyncio.create_task(self._discovery.run())
        collect_garbage_rarely()
        self._settings = Settings.read(os.environ)
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
        await self._adoption.adopt({} if user_config is None else user_config)

    def __serve_build_asgi_app__(self) -> App:
        """Serve's call for the HTTP application, once the constructor is done."""
        gateway = create_app(
            self._fleet,
            self._schedulers,
            RouterContext(
                EngineClient(self._upstream),
                self._schedulers,
                self._admissions,
                self._cold_starts,
                Faults(self._request_metrics.recorder),
                is_forwarded=self._settings.names_clients,
            ),
            live_config=self._live_config,
            request_metrics=self._request_metrics,
        )
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
            await self._demand_publisher.close()
            await self._telemetry_client.close()
            await self._gauges.close()  # last, after everything that counts
            if (tracer := self._request_metrics.tracer) is not None:
                await tracer.close()


def _tracer() -> Tracer | None:
    try:
        return tracer_of(os.environ)
    except ConfigError as error:
        logger.error("tracing is off: %s", error)  # noqa: TRY400 - the message names the field
        return None
