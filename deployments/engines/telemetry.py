"""What an engine tells its routers, over HTTP for as long as they listen."""

import asyncio
import logging

from deployments.engines.asgi import send_error, while_connected
from gateway.asgi import App, Receive, Scope, Send
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.errors import EngineDraining, MethodNotAllowed
from gateway.telemetry import TELEMETRY_PATH, Update, encode_update

PERIOD_S = 0.05
"""Between frames at least."""
KEEP_ALIVE_S = 1.0
"""Between frames at most: whoever hears nothing for much longer knows that the engine is gone."""
BACKLOG_BYTES = 8 << 20
"""What a listener may leave unread."""

logger = logging.getLogger(__name__)


class Telemetry:
    """An engine's application, and beside it, at `TELEMETRY_PATH`, what its report has to tell.

    Each listener gets a snapshot first and then every change. One task makes the frames, for all of
    them, from the first listener to `close`.
    """

    def __init__(self, app: App, report: EngineTracker) -> None:
        self._app = app
        self._report = report
        self._keep_alive_s = KEEP_ALIVE_S
        self._backlog_bytes = BACKLOG_BYTES
        self._listeners: set[_Listener] = set()
        self._changed = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._is_closed = False
        report.watch(self._notice)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a subscription; leave everything else to the engine."""
        if scope["type"] != "http" or scope["path"] != TELEMETRY_PATH:
            await self._app(scope, receive, send)
        elif scope["method"] != "GET":
            method = scope["method"]
            await send_error(send, MethodNotAllowed(f"This path takes GET, not {method}.", "GET"))
        elif self._is_closed:
            await send_error(send, EngineDraining("This engine is shutting down."))
        else:
            await self._tell(receive, send)

    def drain(self) -> None:
        """Tell every listener, at once, that the engine takes no more requests."""
        self._report.drain()
        self._publish()

    async def close(self) -> None:
        """End all subscriptions; there will be no others."""
        if not self._is_closed:
            self._is_closed = True
            self._report.unwatch(self._notice)
            self._publish()
        for listener in self._listeners:
            listener.end()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])

    async def _tell(self, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/octet-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._publish()  # what the others lack is in the newcomer's snapshot
        listener = _Listener(encode_update(self._report.snapshot()), self._backlog_bytes)
        self._join(listener)
        try:
            await while_connected(receive, listener.listen(send))
        finally:
            self._listeners.discard(listener)

    def _join(self, listener: "_Listener") -> None:
        if self._is_closed:
            listener.end()
        elif self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send(), name="engine-telemetry")
        self._listeners.add(listener)

    def _notice(self) -> None:
        if self._listeners:
            self._changed.set()
        else:
            self._report.take()  # or it would pile up

    async def _send(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._keep_alive_s):
                    await self._changed.wait()
            except TimeoutError:
                self._broadcast(self._report.beat())
                continue
            self._publish()
            await asyncio.sleep(PERIOD_S)

    def _publish(self) -> None:
        self._changed.clear()
        if update := self._report.take():
            self._broadcast(update)

    def _broadcast(self, update: Update) -> None:
        frame = encode_update(update)
        for listener in list(self._listeners):
            if not listener.tell(frame):
                self._listeners.discard(listener)


class _Listener:
    """One subscription: what it has not been sent yet."""

    def __init__(self, snapshot: bytes, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._frames = [snapshot]
        self._backlog_bytes = 0
        self._is_over = False
        self._wake = asyncio.Event()
        self._wake.set()
        self._listening: asyncio.Task[None] | None = None

    def tell(self, frame: bytes) -> bool:
        """Take a frame for the listener; False, and the end, if it does not read what it gets."""
        self._backlog_bytes += len(frame)
        if self._backlog_bytes > self._most_bytes:
            logger.warning("a telemetry listener does not read; it is cut off")
            if self._listening is not None:
                self._listening.cancel()
            return False
        self._frames.append(frame)
        self._wake.set()
        return True

    def end(self) -> None:
        """Have the subscription end with what it has been told."""
        self._is_over = True
        self._wake.set()

    async def listen(self, send: Send) -> None:
        """Send what there is to send, until the end."""
        self._listening = asyncio.current_task()
        is_over = False
        while not is_over:
            await self._wake.wait()
            self._wake.clear()
            is_over = self._is_over
            body, self._frames, self._backlog_bytes = b"".join(self._frames), [], 0
            await send({"type": "http.response.body", "body": body, "more_body": not is_over})
