"""Response to one client, over ASGI."""

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.asgi import BodyWriter, Headers, Message, Send
from gateway.serving.timing import Timing


class ResponseFilter(Protocol):
    """Stands between a response and its client: changes what is sent, or holds it back."""

    async def send(self, message: Message, send: Send) -> None:
        """Send a message on with `send`, or others in its place, now or later."""

    def passes(self, body: bytes) -> bool:
        """Whether a part of the body may be written past `send`, as it is."""


class ClientResponse:
    """Response to one request; nothing can be withdrawn once it has begun.

    `headers`: carried by every response to this request, which errors call `request_id`.
    `body_writer`: writes parts of its body where that needs no waiting.
    """

    __slots__ = (
        *("_annotations", "_body_writer", "_headers", "_send"),
        *("body_bytes", "has_begun", "has_ended", "limits", "parts", "request_id", "status"),
        "timing",
    )

    def __init__(
        self,
        send: Send,
        headers: Headers,
        timing: Timing | None = None,
        request_id: bytes = b"",
        body_writer: BodyWriter | None = None,
    ) -> None:
        self._send = send
        self._body_writer = body_writer
        self._headers = headers
        self._annotations: Headers = []
        self.limits: Headers = []
        """Headers that tell the client what the limits of its project leave."""
        self.request_id = request_id
        self.timing = timing or Timing(time.perf_counter)
        self.status = 0
        """Status that was sent to the client; 0 until then."""
        self.has_begun = False
        self.has_ended = False
        self.parts = 0
        """Parts of the body that have been sent."""
        self.body_bytes = 0
        """Bytes of the body that have been sent."""

    @property
    def headers(self) -> Headers:
        """Headers of the gateway's own, as they are now."""
        return [*self._headers, *self._annotations, *self.limits]

    def always_send(self, name: bytes, value: bytes) -> None:
        """Add a header that the response has however the request is answered."""
        self._headers = [*self._headers, (name, value)]

    def annotate(self, headers: Headers) -> None:
        """Add headers that say how the request is answered, or replace those of the same names."""
        if self._annotations:
            names = {name for name, _ in headers}
            headers = [*(h for h in self._annotations if h[0] not in names), *headers]
        self._annotations = headers

    def clear_annotations(self) -> None:
        """Drop the headers that were added."""
        self._annotations = []

    def observe(self, observer: Callable[[Message], None]) -> None:
        """Call `observer` with all that is sent from now on."""
        send = self._send
        self._body_writer = None

        def observed(message: Message) -> Awaitable[None]:
            observer(message)
            return send(message)

        self._send = observed

    def add_filter(self, added: ResponseFilter) -> None:
        """Have all that is sent from now on pass through a filter."""
        send = self._send
        if self._body_writer is not None:
            self._body_writer = _FilteredWriter(self._body_writer, added)

        def filtered(message: Message) -> Awaitable[None]:
            return added.send(message, send)

        self._send = filtered

    async def begin(self, status: int, headers: Headers) -> None:
        """Send status and headers."""
        self.has_begun = True
        self.status = status
        annotations = [*self._annotations, *self.limits] if self.limits else self._annotations
        headers = [*headers, *self._headers, *annotations, *self.timing.headers()]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def send_part(self, body: bytes) -> Awaitable[None]:
        """Send a part of the body after which more follows."""
        self.parts += 1
        self.body_bytes += len(body)
        return self._send({"type": "http.response.body", "body": body, "more_body": True})

    @property
    def is_writable(self) -> bool:
        """Whether parts can be written without waiting at all."""
        return self._body_writer is not None

    def write_part(self, body: bytes, chunks: bytes = b"") -> bool:
        """Send a part as `send_part` does, if that needs no waiting; otherwise return False.

        `chunks`: the part in HTTP's chunked coding, if there is that already.
        """
        if self._body_writer is None or not self._body_writer.write(body, chunks):
            return False
        self.parts += 1
        self.body_bytes += len(body)
        return True

    async def finish(self, body: bytes = b"", *, status: int | None = None) -> None:
        """Send the last, or only, part of the body.

        `status`: the real one, if the response had begun with another and the body has to say so.
        """
        self.has_ended = True
        self.body_bytes += len(body)
        if status is not None:
            self.status = status
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


class _FilteredWriter:
    """A `BodyWriter` for those parts only that a filter lets pass."""

    def __init__(self, writer: BodyWriter, added: ResponseFilter) -> None:
        self._writer = writer
        self._filter = added

    def write(self, body: bytes, chunks: bytes) -> bool:
        """Write a part that the filter lets pass."""
        return self._filter.passes(body) and self._writer.write(body, chunks)
