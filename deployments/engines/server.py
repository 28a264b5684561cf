"""An engine replica's own HTTP server: a free port, an access key, a drain."""

import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import Iterator
from typing import Protocol

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deployments.engines.asgi import BREAK_OFF
from deployments.engines.gate import Gate
from deployments.engines.inbox import Inbox
from deployments.engines.last_words import LastWords
from deployments.engines.telemetry import Telemetry
from gateway.asgi import App
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.telemetry import Demand, EngineFacts

KEEP_ALIVE_S = 75
"""Longer than any router keeps an idle connection: the engine must not be the one to close it."""

CUT_OFF_S = 1
"""Whoever is still connected when the server stops had the whole drain to finish."""


class RunningEngine(Protocol):
    """An engine that has started and can answer."""

    @property
    def app(self) -> App:
        """Answers the OpenAI routes named in `facts`."""

    @property
    def facts(self) -> EngineFacts:
        """What the routers need to know."""

    @property
    def report(self) -> EngineTracker:
        """What the routers need to know of what it does."""

    async def check(self) -> None:
        """Raise when the engine cannot serve, now or ever again."""

    async def stop(self) -> None:
        """Release everything the engine holds."""


class ServerDied(RuntimeError):
    """The HTTP server ended without having been told to."""


class EngineServer:
    """Serves an engine and its telemetry on `host` and a free port, to holders of `key`.

    The engine itself belongs to the caller, who stops it after the server.
    """

    def __init__(self, engine: RunningEngine, host: str) -> None:
        self.key = secrets.token_urlsafe(32)
        self.host = host
        self.port = 0
        app = LastWords(engine.app, engine.check, engine.report)
        self._telemetry = Telemetry(app, engine.report)
        self._inbox = Inbox(self._telemetry)
        self._gate = Gate(self._inbox, self.key)
        self._uvicorn = _Uvicorn(server_config(self._gate))
        self._task: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Requests the engine works on."""
        return self._gate.in_flight

    @property
    def held(self) -> Demand:
        """What routers hold back until the engine has room."""
        return self._inbox.held

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
        await self._uvicorn.settled.wait()
        if not self._uvicorn.started:
            await self._task

    def check(self) -> None:
        """Raise when nobody listens.

        Raises:
            ServerDied: the server was not started, was stopped, or died; its cause says which.
        """
        if self._task is None or self._task.done():
            raise ServerDied("the engine's HTTP server is not running") from self._failure()

    async def drain(self, timeout_s: float) -> int:
        """Refuse new requests and wait for those in flight; how many were left in the end."""
        self._telemetry.drain()
        return await self._gate.drain(timeout_s)

    async def stop(self) -> None:
        """Close every connection and the port; what is in flight is cut off after a moment."""
        await self._telemetry.close()
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
            self._uvicorn.settled.set()

    def _failure(self) -> BaseException | None:
        task = self._task
        return None if task is None or task.cancelled() else task.exception()


def server_config(app: App) -> uvicorn.Config:
    """How uvicorn serves an engine."""
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        interface="asgi3",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=2 * CUT_OFF_S,
    )


class _Protocol(HttpToolsProtocol):
    """uvicorn's, whose application can break a connection off."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {BREAK_OFF: {"now": self._break_off}}

    def _break_off(self) -> None:
        """Reset the connection, as the death of a machine would."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class _Uvicorn(uvicorn.Server):
    """uvicorn as a guest in a process that is not its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.servers = []  # uvicorn sets it once it listens
        self.settled = asyncio.Event()
        """It listens, or has failed to."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.settled.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process's owner."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the idle go in peace, cut off the rest after a moment, and await every task."""
        cut_off = asyncio.get_running_loop().call_later(CUT_OFF_S, self.close)
        try:
            await super().shutdown(sockets)
        finally:
            cut_off.cancel()
            self.close()
            # uvicorn cancels the tasks of those who do not mind a disconnect, and forgets them.
            await asyncio.gather(*self.server_state.tasks, return_exceptions=True)

    def close(self) -> None:
        """Stop listening and break every connection, which tells the routers to try elsewhere."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
