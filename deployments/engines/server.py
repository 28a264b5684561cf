"""HTTP server of an engine replica: a free port, an access key, a drain."""

import asyncio
import logging
import secrets
import socket
from typing import Protocol

import uvicorn

from deployments.engines.call import with_call_context
from deployments.engines.control_routes import (
    BACKLOG_BYTES,
    FRAME_PERIOD_S,
    KEEP_ALIVE_S,
    ControlRoutes,
)
from deployments.engines.guards import DeadEngineGuard, EngineGuard
from deployments.serve_internals.uvicorn_server import GRACE_S, EmbeddedServer, http_protocol
from gateway.asgi import App
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.telemetry.demand import Demand
from gateway.telemetry.facts import EngineFacts

logger = logging.getLogger(__name__)

IDLE_TIMEOUT_S = 75
"""Longer than any router keeps an idle connection: the engine must not be the one to close it."""
START_POLL_S = 0.005
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


class ServerDied(RuntimeError):
    """The HTTP server is not running although it was not stopped."""


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
        self.key = secrets.token_urlsafe(32)
        self.host = host
        self.port = 0
        app = with_call_context(engine.app, engine.tracker)
        app = DeadEngineGuard(app, engine.check, engine.tracker)
        self._control = ControlRoutes(
            app, engine.tracker, keep_alive_s, backlog_bytes, frame_period_s
        )
        self._guard = EngineGuard(self._control, self.key)
        self._uvicorn = EmbeddedServer(server_config(self._guard))
        self._task: asyncio.Task[None] | None = None

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
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, 0), family=family)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._serve(listener), name="engine-http-server")
        while not (self._uvicorn.started or self._task.done()):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(START_POLL_S)
        if not self._uvicorn.started:
            await self._task

    def check(self) -> None:
        """Raise if the server is not running.

        Raises:
            ServerDied: the server was not started, was stopped, or died; its cause says which.
        """
        if self._task is None or self._task.done():
            raise ServerDied("the engine's HTTP server is not running") from self._failure()

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
        if self._task is not None:
            self._uvicorn.should_exit = True
            await asyncio.wait([self._task])

    async def _serve(self, listener: socket.socket) -> None:
        try:
            await self._uvicorn.serve(sockets=[listener])
        except SystemExit as error:
            # uvicorn's way to say that the start failed; in a task it would end the event loop.
            raise ServerDied("the engine's application failed to start") from error
        finally:
            self._uvicorn.close()
            listener.close()

    def _failure(self) -> BaseException | None:
        task = self._task
        return None if task is None or task.cancelled() else task.exception()


def server_config(app: App) -> uvicorn.Config:
    """Configuration of uvicorn for an engine."""
    return uvicorn.Config(
        app,
        http=http_protocol(),
        ws="none",
        interface="asgi3",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=IDLE_TIMEOUT_S,
        timeout_graceful_shutdown=2 * GRACE_S,
    )
