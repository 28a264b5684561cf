"""One request's way back to its client."""

import time
from collections.abc import Awaitable, Callable

from gateway.asgi import Headers, Message, Send
from gateway.serving.timing import Timing


class ClientResponse:
    """Where an answer goes; knows whether it has begun, after which nothing can be taken back."""

    __slots__ = ("_send", "has_begun", "has_ended", "headers", "parts", "status", "timing")

    def __init__(self, send: Send, headers: Headers, timing: Timing | None = None) -> None:
        self._send = send
        self.timing = timing or Timing(time.perf_counter)
        self.headers = headers
        """What every answer to this request carries."""
        self.status = 0
        """What it was answered with; 0 until then."""
        self.has_begun = False
        self.has_ended = False
        self.parts = 0
        """How many have been sent."""

    def observe(self, observer: Callable[[Message], None]) -> None:
        """Have `observer` see all that is sent from now on."""
        send = self._send

        def sending(message: Message) -> Awaitable[None]:
            observer(message)
            return send(message)

        self._send = sending

    async def begin(self, status: int, headers: Headers) -> None:
        """Send status and headers."""
        self.has_begun = True
        self.status = status
        headers = [*headers, *self.headers, self.timing.reply()]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def part(self, body: bytes) -> Awaitable[None]:
        """Send a part of the body after which more comes."""
        self.parts += 1
        return self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self, body: bytes = b"") -> None:
        """Send the last, or only, part of the body."""
        self.has_ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
