"""The door of an engine's HTTP server: who may enter, who is inside, and when it closes."""

import asyncio
import contextlib
import secrets

from deployments.engines.asgi import send_error
from gateway.asgi import App, Receive, Scope, Send
from gateway.errors import EngineDraining, InvalidKey


class Gate:
    """Lets in who has the key, counts the work inside, and closes for a drain.

    Work is what comes by POST. Other methods ask a question (`/health`, a subscription to what the
    engine does): they are answered to the end, and nobody waits for them.
    """

    def __init__(self, app: App, key: str) -> None:
        self._app = app
        self._authorization = b"Bearer " + key.encode()
        self._is_draining = False
        self._idle = asyncio.Event()
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif not self._has_key(scope):
            await send_error(send, InvalidKey("Engines answer to their gateway only."))
        elif scope["method"] != "POST":
            await self._app(scope, receive, send)
        elif self._is_draining:
            await send_error(send, EngineDraining("This engine is shutting down."))
        else:
            await self._work(scope, receive, send)

    async def drain(self, timeout_s: float) -> int:
        """Refuse new work and wait for the work inside; how much of it was left in the end."""
        self._is_draining = True
        if self.in_flight:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)
        return self.in_flight

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.in_flight += 1
        try:
            # Returns once the response is complete, or the engine noticed that its client is gone.
            await self._app(scope, receive, send)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    def _has_key(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"authorization":
                return secrets.compare_digest(value, self._authorization)
        return False
