"""HTTP server of an engine replica: a free port, an access key, a drain."""

import logging
from typing import Protocol

from deployments.engines.call import with_call_context
from deployments.engines.control_routes import (
    BACKLOG_BYTES,
    FRAME_PERIOD_S,
    KEEP_ALIVE_S,
    ControlRoutes,
)
from deployments.engines.guards import DeadEngineGuard, EngineGuard
from deployments.private_server import PrivateServer
from gateway.asgi import App
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.telemetry.demand import Demand
from gateway.telemetry.facts import EngineFacts

logger = logging.getLogger(__name__)

CONFIRMATION_TIMEOUT_S = 10.0
"""How long a stopping engine waits until Accounts has all of its usage records."""


class RunningEngine(Protocol):
    """An engine that has started and can answer; it feeds `tracker` with every request it runs."""

    @property
    def app(self) -> App:
        """Application that answers the OpenAI routes named in `facts`."""

    @property
    def facts(self) -> EngineFacts:
        """Facts that do not change while it runs."""

    @property
    def tracker(self) -> EngineTracker:
        """State of its requests, cache and adapters, for routers."""

    async def check(self) -> None:
        """Raise if the engine cannot serve, now or ever again."""

    async def ping(self) -> None:
        """Return once the engine has shown that it works; raise if it has died."""

    async def stop(self) -> None:
        """Release everything the engine holds."""


class EngineServer:
    """Server of an engine and its control routes on `host` and a free port, for holders of `key`.

    The caller owns the engine, and stops it after the server.
    """

    def __init__(
        self,
        engine: RunningEngine,
        host: str,
        keep_alive_s: float = KEEP_ALIVE_S,
        backlog_bytes: int = BACKLOG_BYTES,
        frame_period_s: float = FRAME_PERIOD_S,
    ) -> None:
        app = with_call_context(engine.app, engine.tracker)
        app = DeadEngineGuard(app, engine.check, engine.tracker)
        self._control = ControlRoutes(
            app, engine.tracker, keep_alive_s, backlog_bytes, frame_period_s
        )
        self._guard = EngineGuard(self._control)
        self._http = PrivateServer(self._guard, host, "the engine")

    @property
    def key(self) -> str:
        """Key of its clients."""
        return self._http.key

    @property
    def host(self) -> str:
        """Address that it listens on."""
        return self._http.host

    @property
    def port(self) -> int:
        """Port that it listens on; 0 until it has started."""
        return self._http.port

    @property
    def in_flight(self) -> int:
        """Requests that the engine works on."""
        return self._guard.in_flight

    @property
    def demand(self) -> Demand:
        """Requests that routers hold back until the engine has room."""
        return self._control.demand

    async def start(self) -> None:
        """Listen; `port` is known from here on.

        Raises:
            OSError: `host` is not an address of this machine.
            ServerDied: the engine's application failed to start.
        """
        await self._http.start()

    def check(self) -> None:
        """Raise if the server is not running.

        Raises:
            ServerDied: the server was not started, was stopped, or died; its cause says which.
        """
        self._http.check()

    async def drain(self, timeout_s: float) -> int:
        """Reject new requests and wait for those in flight; the number left after `timeout_s`."""
        self._control.drain()
        left = await self._guard.drain(timeout_s)
        if lost := await self._control.usage.wait_until_confirmed(CONFIRMATION_TIMEOUT_S):
            logger.warning(
                "Accounts has not confirmed %d usage records of this engine: routers hand over what"
                " they have of them",
                lost,
            )
        return left

    async def stop(self) -> None:
        """Close every connection and the port; requests in flight are cut off after a moment."""
        await self._control.close()
        await self._http.stop()
