"""Control routes of an engine's server: telemetry for routers, their demand, usage for Accounts."""

import asyncio
import logging

import msgspec

from deployments.engines.asgi import read_body, send_error, send_json, while_connected
from deployments.engines.usage_route import UsageRoute
from gateway.asgi import App, Receive, Scope, Send
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.errors.request import InvalidRequest, MethodNotAllowed
from gateway.errors.upstream import EngineDraining
from gateway.telemetry.demand import DEMAND_PATH, Demand
from gateway.telemetry.update import TELEMETRY_PATH, Update, encode_update
from gateway.telemetry.usage import USAGE_PATH

FRAME_PERIOD_S = 0.05
"""Least time between frames."""
KEEP_ALIVE_S = 1.0
"""Most time between frames: a router without one for much longer knows the engine is gone."""
BACKLOG_BYTES = 8 << 20
"""Most bytes that a subscriber may leave unread."""
METHODS = {TELEMETRY_PATH: "GET", DEMAND_PATH: "PUT", USAGE_PATH: "GET"}

logger = logging.getLogger(__name__)

_demand_decoder = msgspec.json.Decoder(Demand)


class ControlRoutes:
    """An engine's application, and beside it the routes by which routers and engine coordinate.

    `TELEMETRY_PATH` streams what the engine's tracker has to say: each subscriber gets a snapshot
    and then every change. One task makes the frames for all, from the first subscriber to `close`.
    `DEMAND_PATH` receives what routers hold back for the engine. A drain waits for neither.
    `USAGE_PATH` hands the engine's usage records to Accounts (`usage`).
    """

    def __init__(
        self,
        app: App,
        tracker: EngineTracker,
        keep_alive_s: float = KEEP_ALIVE_S,
        backlog_bytes: int = BACKLOG_BYTES,
        frame_period_s: float = FRAME_PERIOD_S,
    ) -> None:
        self._app = app
        self._tracker = tracker
        self.usage = UsageRoute(tracker.usage.log)
        self._keep_alive_s = keep_alive_s
        self._backlog_bytes = backlog_bytes
        self._frame_period_s = frame_period_s
        self._subscribers: set[_Subscriber] = set()
        self._changed = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._is_closed = False
        tracker.add_listener(self._on_change)

    @property
    def demand(self) -> Demand:
        """Requests that all routers together hold back for the engine."""
        return self._tracker.router_demand.total

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a control request; pass every other one on to the engine."""
        allowed = METHODS.get(scope["path"]) if scope["type"] == "http" else None
        if allowed is None:
            await self._app(scope, receive, send)
        elif scope["method"] != allowed:
            error = f"This path takes {allowed}, not {scope['method']}."
            await send_error(send, MethodNotAllowed(error, allowed))
        elif scope["path"] == DEMAND_PATH:
            await self._receive_demand(receive, send)
        elif scope["path"] == USAGE_PATH:
            await self.usage(scope, receive, send)
        elif self._is_closed:
            await send_error(send, EngineDraining("This engine is shutting down."))
        else:
            await self._stream_telemetry(receive, send)

    def drain(self) -> None:
        """Tell every subscriber, at once, that the engine accepts no more requests."""
        self._tracker.record_draining()
        self._publish()

    async def close(self) -> None:
        """End all subscriptions; later ones are rejected."""
        if not self._is_closed:
            self._is_closed = True
            self._tracker.remove_listener(self._on_change)
            self._publish()
        self.usage.close()
        for subscriber in self._subscribers:
            subscriber.end()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])

    async def _receive_demand(self, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        if body is None:
            return
        try:
            self._tracker.record_demand(_demand_decoder.decode(body))
        except msgspec.MsgspecError as error:
            await send_error(send, InvalidRequest(f"This is no demand: {error}."))
        else:
            await send_json(send, 200, b"{}")

    async def _stream_telemetry(self, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/octet-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._publish()  # pending changes are in the new subscriber's snapshot
        subscriber = _Subscriber(encode_update(self._tracker.snapshot()), self._backlog_bytes)
        self._add(subscriber)
        try:
            await while_connected(receive, subscriber.send_frames(send))
        finally:
            self._subscribers.discard(subscriber)

    def _add(self, subscriber: "_Subscriber") -> None:
        if self._is_closed:
            subscriber.end()
        elif self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_changes(), name="engine-telemetry")
        self._subscribers.add(subscriber)

    def _on_change(self) -> None:
        if self._subscribers:
            self._changed.set()
        else:
            self._tracker.pop_update()  # or it would pile up

    async def _send_changes(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._keep_alive_s):
                    await self._changed.wait()
            except TimeoutError:
                self._broadcast(self._tracker.heartbeat())
                continue
            self._publish()
            await asyncio.sleep(self._frame_period_s)

    def _publish(self) -> None:
        self._changed.clear()
        if update := self._tracker.pop_update():
            self._broadcast(update)

    def _broadcast(self, update: Update) -> None:
        frame = encode_update(update)
        for subscriber in list(self._subscribers):
            if not subscriber.push(frame):
                self._subscribers.discard(subscriber)


class _Subscriber:
    """One telemetry subscription: the frames that have not been sent yet."""

    def __init__(self, snapshot: bytes, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._frames = [snapshot]
        self._backlog_bytes = 0
        self._is_over = False
        self._has_frames = asyncio.Event()
        self._has_frames.set()
        self._sending: asyncio.Task[None] | None = None

    def push(self, frame: bytes) -> bool:
        """Queue a frame; False, and the subscription ends, if the backlog is full."""
        self._backlog_bytes += len(frame)
        if self._backlog_bytes > self._most_bytes:
            logger.warning(
                "a router does not read its telemetry: %d bytes are pending, disconnecting it",
                self._backlog_bytes,
            )
            if self._sending is not None:
                self._sending.cancel()
            return False
        self._frames.append(frame)
        self._has_frames.set()
        return True

    def end(self) -> None:
        """End the subscription after the queued frames."""
        self._is_over = True
        self._has_frames.set()

    async def send_frames(self, send: Send) -> None:
        """Send frames as they come, until the subscription ends."""
        self._sending = asyncio.current_task()
        is_over = False
        while not is_over:
            await self._has_frames.wait()
            self._has_frames.clear()
            is_over = self._is_over
            body, self._frames, self._backlog_bytes = b"".join(self._frames), [], 0
            await send({"type": "http.response.body", "body": body, "more_body": not is_over})
