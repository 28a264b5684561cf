"""Guards in front of an engine's application: drain, errors of a dead engine."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from deployments.engines.asgi import send_error
from gateway.asgi import App, Message, Receive, Scope, Send
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.errors.upstream import EngineDied, EngineDraining


class EngineGuard:
    """Counts the requests in flight, and rejects new ones in a drain.

    Inference comes by POST. Requests by other methods (`/health`, telemetry) are answered until the
    server stops, and a drain does not wait for them.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._is_draining = False
        self._idle = asyncio.Event()
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request, or pass it on."""
        if scope["type"] == "lifespan" or scope["method"] != "POST":
            await self._app(scope, receive, send)
        elif self._is_draining:
            await send_error(send, EngineDraining("This engine is shutting down."))
        else:
            await self._count(scope, receive, send)

    async def drain(self, timeout_s: float) -> int:
        """Reject new requests and wait for those in flight; the number left after `timeout_s`."""
        self._is_draining = True
        if self.in_flight:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)
        return self.in_flight

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.in_flight += 1
        try:
            # Returns once the response is complete, or the engine noticed that its client is gone.
            await self._app(scope, receive, send)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()


class DeadEngineGuard:
    """Sends routers to other engines while `check` raises, until the replica ends.

    A dead engine answers each request with a server error, and at once: routers would see it as the
    least loaded of all, and use up their retries on it.
    """

    def __init__(
        self, app: App, check: Callable[[], Awaitable[None]], tracker: EngineTracker
    ) -> None:
        self._app = app
        self._check = check
        self._tracker = tracker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the engine answer, or reject the request if the engine is dead."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif await self.is_dead():
            await self.reject(send)
        else:
            sender = _GuardedSend(self, send)
            try:
                await self._app(scope, receive, sender)
            except Exception:
                # What the engine raises after our own response must not break that off.
                if not sender.is_replaced:
                    raise

    async def reject(self, send: Send, *, has_request: bool = False) -> None:
        """Answer that another engine must, and let all routers know.

        `has_request`: the engine had the request, which may be what has killed it.
        """
        self._tracker.record_draining()
        message = "This engine has died."
        await send_error(send, EngineDied(message) if has_request else EngineDraining(message))

    async def is_dead(self) -> bool:
        """Whether the engine will never answer again."""
        try:
            await self._check()
        except Exception:  # noqa: BLE001 - the replica's own watch logs it
            return True
        return False


class _GuardedSend:
    """ASGI's `send`, which replaces a server error of a dead engine by the guard's rejection."""

    def __init__(self, guard: DeadEngineGuard, send: Send) -> None:
        self._guard = guard
        self._send = send
        self.is_replaced = False

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send one message; without a coroutine of our own for each chunk of a stream."""
        is_start = message["type"] == "http.response.start"
        if self.is_replaced or (is_start and message["status"] >= 500):
            return self._check_first(message)
        return self._send(message)

    async def _check_first(self, message: Message) -> None:
        if self.is_replaced:
            return
        self.is_replaced = await self._guard.is_dead()
        if self.is_replaced:
            await self._guard.reject(self._send, has_request=True)
        else:
            await self._send(message)
