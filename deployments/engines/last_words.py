"""What is answered in the name of an engine that has died."""

from collections.abc import Awaitable, Callable

from deployments.engines.asgi import send_error
from gateway.asgi import App, Message, Receive, Scope, Send
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.errors import EngineDraining


class LastWords:
    """Sends routers elsewhere while `check` raises, until the replica ends.

    A dead engine answers each request with a server error, and at once: routers would take it for
    the idlest of all, and use up on it the retries that they allow themselves.
    """

    def __init__(
        self, app: App, check: Callable[[], Awaitable[None]], report: EngineTracker
    ) -> None:
        self._app = app
        self._check = check
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the engine answer, or say that another one must."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif await self.is_dead():
            await self.decline(send)
        else:
            answer = _Answer(self, send)
            try:
                await self._app(scope, receive, answer.send)
            except Exception:
                # What is raised after our own answer must not break that off.
                if not answer.is_ours:
                    raise

    async def decline(self, send: Send) -> None:
        """Answer that another engine must, and let all routers know."""
        self._report.drain()
        await send_error(send, EngineDraining("This engine has died."))

    async def is_dead(self) -> bool:
        """Whether the engine will never answer again."""
        try:
            await self._check()
        except Exception:  # noqa: BLE001 - the replica's own watch logs it
            return True
        return False


class _Answer:
    """The engine's answer, or ours in its place, if it is the error of a dead one."""

    def __init__(self, last_words: LastWords, send: Send) -> None:
        self._last_words = last_words
        self._send = send
        self.is_ours = False

    def send(self, message: Message) -> Awaitable[None]:
        """ASGI's `send`; no coroutine of our own for each of a stream's chunks."""
        is_start = message["type"] == "http.response.start"
        if self.is_ours or (is_start and message["status"] >= 500):
            return self._judge(message)
        return self._send(message)

    async def _judge(self, message: Message) -> None:
        if self.is_ours:
            return
        self.is_ours = await self._last_words.is_dead()
        await (self._last_words.decline(self._send) if self.is_ours else self._send(message))
