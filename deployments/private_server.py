"""HTTP server for the gateway's own processes only: a free port, and a key."""

import asyncio
import secrets
import socket

import uvicorn

from deployments.serve_internals.uvicorn_server import GRACE_S, EmbeddedServer, http_protocol
from gateway.asgi import App, Receive, Scope, Send, header
from gateway.errors.access import InvalidKey
from gateway.http.errors import send_error
from gateway.serving.client_response import ClientResponse

IDLE_TIMEOUT_S = 75
"""Longer than any client of ours keeps an idle connection: the server must not be the one to close
it."""
START_POLL_S = 0.005


class ServerDied(RuntimeError):
    """The HTTP server is not running although it was not stopped."""


class PrivateServer:
    """Server of an application on `host` and a free port, for holders of `key`; `name`: whose."""

    def __init__(self, app: App, host: str, name: str) -> None:
        self.key = secrets.token_urlsafe(32)
        self.host = host
        self.port = 0
        self._name = name
        self._uvicorn = EmbeddedServer(server_config(KeyGuard(app, self.key)))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; `port` is known from here on.

        Raises:
            OSError: `host` is not an address of this machine.
            ServerDied: the application failed to start.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, 0), family=family)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._serve(listener), name=f"{self._name}-http-server")
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
            message = f"the HTTP server of {self._name} is not running"
            raise ServerDied(message) from self._failure()

    async def stop(self) -> None:
        """Close every connection and the port; requests in flight are cut off after a moment."""
        if self._task is not None:
            self._uvicorn.should_exit = True
            await asyncio.wait([self._task])

    async def _serve(self, listener: socket.socket) -> None:
        try:
            await self._uvicorn.serve(sockets=[listener])
        except SystemExit as error:
            # uvicorn's way to say that the start failed; in a task it would end the event loop.
            raise ServerDied(f"the application of {self._name} failed to start") from error
        finally:
            self._uvicorn.close()
            listener.close()

    def _failure(self) -> BaseException | None:
        task = self._task
        return None if task is None or task.cancelled() else task.exception()


class KeyGuard:
    """Rejects requests without the key."""

    def __init__(self, app: App, key: str) -> None:
        self._app = app
        self._authorization = b"Bearer " + key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request, or pass it on."""
        if scope["type"] != "http" or self._has_key(scope):
            await self._app(scope, receive, send)
            return
        error = InvalidKey("This port answers to the gateway only.")
        await send_error(error, scope, ClientResponse(send, []))

    def _has_key(self, scope: Scope) -> bool:
        given = header(scope["headers"], b"authorization", b"")
        return secrets.compare_digest(given, self._authorization)


def server_config(app: App) -> uvicorn.Config:
    """Configuration of uvicorn for a server that has no clients of others."""
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
