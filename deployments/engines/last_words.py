"""What is answered in the name of an engine that has died."""

from collections.abc import Awaitable, Callable

from deployments.engines.asgi import send_error
from gateway.errors import EngineDraining
from gateway.relay.asgi import App, Message, Receive, Scope, Send
from gateway.routing.report import Report


class LastWords:
    """Sends routers elsewhere while `check` raises, until the replica ends.

    A dead engine answers each request with a server error, and at once: routers would take it for
    the idlest of all, and use up on it the retries that they allow themselves.
    """

    def __init__(self, app: App, check: Callable[[], Awaitable[None]], report: Report) -> None:
        self._app = app
        self._check = check
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the engine answer, or say that another one must."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_answered = False

        async def send_alive(message: Message) -> None:
            nonlocal is_answered
            if is_answered:
                return
            is_failure = message["type"] == "http.response.start" and message["status"] >= 500
            if is_failure and await self._is_dead():
                is_answered = True
                await self._decline(send)
                return
            await send(message)

        if await self._is_dead():
            await self._decline(send)
            return
        try:
            await self._app(scope, receive, send_alive)
        except Exception:
            # What is raised after its own answer must not break that off.
            if not is_answered:
                raise

    async def _decline(self, send: Send) -> None:
        self._report.drain()
        await send_error(send, EngineDraining("This engine has died."))

    async def _is_dead(self) -> bool:
        try:
            await self._check()
        except Exception:  # noqa: BLE001 - the replica's own watch logs it
            return True
        return False
