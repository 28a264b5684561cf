"""The client's end of an answer: what it has been sent, whatever engines it came from."""

from collections.abc import Awaitable

from gateway.asgi import Headers
from gateway.errors import ContextExceeded, GatewayError, StreamLost
from gateway.request.routes import JOURNALED
from gateway.resume.resumption import Resumption
from gateway.resume.splice import Diverged
from gateway.resume.stream_log import StreamLog
from gateway.serving.client_response import ClientResponse
from gateway.serving.timing import FIRST_EVENT
from gateway.upstream.engine_call import WHOLE_LIMIT, read_whole
from gateway.upstream.event_stream import pass_events
from gateway.upstream.headers import to_client
from gateway.upstream.response import EngineResponse
from gateway.upstream.sse import WholeEvents, error_event, late_answer

TOO_LONG = (b"maximum context length", b"maximum model length")
"""What engines' refusals of a prompt that is too long say; the first one is OpenAI's own."""
EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
"""How a stream begins of which no engine has begun to answer."""
LATE_LIMIT = 64 << 20
"""Bytes of an answer that is no stream, for a client that has been sent signs of life already."""


class ResponseWriter:
    """Puts answers, or what carries them on, into `reply`, as the API at `path` has them.

    A stream begins with its first event: until then nothing is promised, and one write takes both;
    but only where its client has signs of life meanwhile (`has_heartbeat`).
    """

    def __init__(
        self, path: str, reply: ClientResponse, *, is_journaled: bool, has_heartbeat: bool = True
    ) -> None:
        self.reply = reply
        self._has_heartbeat = has_heartbeat
        self.stream_log = StreamLog() if is_journaled and path in JOURNALED else None
        """What the client has been sent of a stream, where that may be carried on."""
        self.carrying: Resumption | None = None
        """How its rest is made from what an engine sends now."""
        self.parts = 0
        """How many parts of a stream the client has been sent."""
        self.is_committed = False
        """An answer that is no stream has begun, which cannot be taken back or mended."""
        self.has_alternative = False
        """Another model may take the request."""
        self._head = EVENTS
        self._path = path
        self._events = WholeEvents()
        self._last = b""

    @property
    def has_sent(self) -> bool:
        """Whether the client has been sent some of a stream."""
        return self.parts > 0

    @property
    def is_between(self) -> bool:
        """Whether a comment may be put into the stream now."""
        return not self.is_committed and not self._events.is_torn

    async def pass_on(self, response: EngineResponse) -> None:
        """Send the client an engine's answer, or the rest of one.

        Raises:
            UpstreamFailed: it broke off; `has_sent` and `is_committed` tell what can be done.
            StreamLost: it is not the rest of what the client has been sent.
            ContextExceeded: the prompt is too long for the model, and there is another one.
        """
        if response.status == 200 and _is_events(response):
            await self._pass_stream(response)
        elif self.has_sent:
            raise StreamLost(
                f"The engine broke off, and another refused to go on ({response.status})."
            )
        elif self.reply.has_begun:
            body = await self._read(response, LATE_LIMIT)
            self.reply.status = response.status  # its client is told in an event
            if not response.is_finished:
                raise StreamLost("The engine's answer is no stream, and too long for an event.")
            await self.reply.finish(late_answer(body, self._path))
        else:
            first = await self._read(response)
            self.is_committed = True
            await self.reply.begin(response.status, to_client(response.headers))
            await pass_bytes(response, first, self.reply)

    async def _read(self, response: EngineResponse, limit: int = WHOLE_LIMIT) -> bytes:
        body = await read_whole(response, limit)
        is_refusal = self.has_alternative and response.status == 400
        if is_refusal and any(words in body for words in TOO_LONG):
            raise ContextExceeded("The prompt is longer than the model's context.")
        return body

    async def end(self, error: GatewayError) -> None:
        """End a stream that has begun with an error event."""
        await self.reply.finish(self._events.cut() + error_event(error, self._path, self._last))

    async def _pass_stream(self, response: EngineResponse) -> None:
        self._head = to_client(response.headers)
        if not (self._has_heartbeat or self.has_alternative):
            await self.begin()
        self._events = WholeEvents()
        timing = self.reply.timing
        if not self.parts:
            timing.step(FIRST_EVENT)
        try:
            await self._pass_all(response)
        finally:
            timing.leave(FIRST_EVENT)

    async def _pass_all(self, response: EngineResponse) -> None:
        try:
            last = await pass_events(response, self._events, self._pass)
            if self.carrying is not None:
                last = self.carrying.splice.feed(last)
        except Diverged:
            raise StreamLost("The engine broke off, and another gave a different answer.") from None
        await self.begin()
        if last and not self.parts:
            self._note_first()
        await self.reply.finish(last)

    async def begin(self) -> None:
        """Begin a stream, if it has not begun yet."""
        if not self.reply.has_begun:
            await self.reply.begin(200, self._head)

    def _pass(self, events: bytes) -> Awaitable[None]:
        if self.carrying is not None:
            return self._pass_spliced(events, self.carrying)
        if not self.reply.has_begun:
            return self._pass_first(events)
        return self._send(events)

    async def _pass_first(self, events: bytes) -> None:
        await self.begin()
        await self._send(events)

    async def _pass_spliced(self, events: bytes, carrying: Resumption) -> None:
        if chunk := carrying.splice.feed(events):
            await self._send(chunk)

    def _send(self, events: bytes) -> Awaitable[None]:
        if not self.parts:
            self._note_first()
        self.parts += 1
        self._last = events
        if self.stream_log is not None:
            self.stream_log.add(events)
        return self.reply.part(events)

    def _note_first(self) -> None:
        timing = self.reply.timing
        timing.first_s = timing.now()
        timing.leave(FIRST_EVENT)


def _is_events(response: EngineResponse) -> bool:
    for name, value in response.headers:
        if name == b"content-type":
            return value.startswith(b"text/event-stream")
    return False


async def pass_bytes(response: EngineResponse, first: bytes, reply: ClientResponse) -> None:
    """Pass on an answer that is no stream of events, of which `first` has been read.

    Raises:
        UpstreamFailed: it broke off.
    """
    chunk = first
    while not response.is_finished:
        await reply.part(chunk)
        chunk = await response.read()
    await reply.finish(chunk)
