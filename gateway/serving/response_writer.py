"""Writer of one response, which may come from several engines."""

from collections.abc import Awaitable, Callable

from gateway.asgi import Headers, header
from gateway.errors.engine import TOO_LONG, engine_error_body
from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import ContextExceeded
from gateway.errors.upstream import StreamLost, UpstreamFailed
from gateway.request.routes import RESUMABLE_ROUTES
from gateway.resume.resumption import ResumptionPlan
from gateway.resume.splice import StreamDiverged
from gateway.resume.stream_log import StreamLog
from gateway.routing.decision import Decision
from gateway.serving.client_response import ClientResponse
from gateway.serving.signs_of_life import NO_SIGNS, signs_of_life
from gateway.serving.timing import FIRST_EVENT
from gateway.upstream.engine_call import BUFFER_LIMIT, read_all
from gateway.upstream.event_stream import ERROR, forward_events
from gateway.upstream.headers import UNBUFFERED, client_headers, stream_headers
from gateway.upstream.late_answer import late_events
from gateway.upstream.response import EngineResponse
from gateway.upstream.sse import EventBuffer, error_event

EVENT_STREAM: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), *UNBUFFERED]
"""Headers of a stream that begins before any engine has answered."""
LATE_LIMIT = 64 << 20
"""Bytes of an answer that is no stream, for a client whose stream has begun already."""


class ResponseWriter:
    """Writes engines' answers, or the rest of one, to a client in the shape of the API at `path`.

    A stream begins with its first event: until then nothing is promised, and one write takes both;
    but only where a heartbeat keeps its client waiting (`has_heartbeat`).
    """

    def __init__(
        self,
        path: str,
        client_response: ClientResponse,
        *,
        is_resumable: bool,
        has_heartbeat: bool = True,
    ) -> None:
        self.client_response = client_response
        self._has_heartbeat = has_heartbeat
        self.stream_log = StreamLog() if is_resumable and path in RESUMABLE_ROUTES else None
        """Events that the client has been sent, if the stream may be resumed."""
        self.signs_of_life = signs_of_life(path) if has_heartbeat else NO_SIGNS
        """What a silent stream is sent."""
        self.decisions: list[Decision] = []
        """Decisions on all attempts, of all models together."""
        self.attempts = 0
        """Attempts that have reached engines, of all models together."""
        self.is_counted = False
        """All routers have counted the request against its project's limits."""
        self.parts = 0
        """Parts of a stream that the client has been sent."""
        self.on_next_part: Callable[[], None] | None = None
        """Called once, when the next part of a stream is sent."""
        self.is_committed = False
        """An answer that is no stream has begun, so it can be neither withdrawn nor resumed."""
        self._resumption: ResumptionPlan | None = None
        """Plan by which the engine's events become the rest of a broken stream."""
        self._head = EVENT_STREAM
        self._path = path
        self._events = EventBuffer()
        self._last = b""

    @property
    def has_sent(self) -> bool:
        """Whether the client has been sent some of a stream."""
        return self.parts > 0

    @property
    def is_between_events(self) -> bool:
        """Whether a comment may be put into the stream now."""
        return not self.is_committed and not self._events.is_mid_event

    async def forward(
        self,
        response: EngineResponse,
        resumption: ResumptionPlan | None = None,
        *,
        has_alternative: bool = False,
    ) -> None:
        """Send the client an engine's answer, or the rest of one where there is a `resumption`.

        `has_alternative`: another model may answer the request.

        Raises:
            UpstreamFailed: the answer broke off; see `has_sent` and `is_committed`.
            StreamLost: the answer does not continue what the client has been sent.
            ContextExceeded: the prompt is too long for this model, and there is another one.
        """
        self._resumption = resumption
        if response.status == 200 and _is_event_stream(response):
            await self._forward_stream(response, has_alternative=has_alternative)
        elif self.has_sent:
            raise StreamLost(
                f"The engine broke off, and another refused to go on ({response.status})."
            )
        elif self.client_response.has_begun:
            body = await read_answer(response, LATE_LIMIT, has_alternative=has_alternative)
            if not response.is_finished:
                raise StreamLost("The engine's answer is no stream, and too long for an event.")
            await self._finish_late(response.status, body)
        elif response.status >= 400:
            body = await read_answer(response, has_alternative=has_alternative)
            self.is_committed = True
            body = body if response.is_finished else b""
            await self._send_error(response.status, body, client_headers(response.headers))
        else:
            first = await read_answer(response, has_alternative=has_alternative)
            self.is_committed = True
            await self.client_response.begin(response.status, client_headers(response.headers))
            await forward_bytes(response, first, self.client_response)

    async def begin(self) -> None:
        """Begin a stream, if it has not begun yet."""
        if not self.client_response.has_begun:
            await self.client_response.begin(200, self._head)

    async def refuse(self, error: UpstreamFailed) -> None:
        """Answer with an engine's own error, under its own status; nothing has been sent yet."""
        if self.client_response.has_begun:
            await self._finish_late(error.engine_status, error.engine_body)
        else:
            await self._send_error(error.engine_status, error.engine_body, error.headers)

    async def finish(self, ending: bytes) -> None:
        """End a stream whose rest needs no engine."""
        await self.client_response.finish(ending)

    async def fail(self, error: GatewayError) -> None:
        """End a stream that has begun with an error event."""
        request_id = self.client_response.request_id
        event = error_event(error, self._path, self._last, request_id)
        end = self.signs_of_life.failed(event, error.detail.message)
        await self.client_response.finish(self._events.discard_partial() + end)

    async def _finish_late(self, status: int, body: bytes) -> None:
        """Send an answer that is no stream, or an error, as the rest of a stream that has begun."""
        if status >= 400:
            body = self._error_body(body, status)
        await self.client_response.finish(late_events(body, status, self._path), status=status)

    async def _send_error(self, status: int, body: bytes, headers: Headers) -> None:
        """Answer with an engine's error; `headers`: those that it comes with."""
        body = self._error_body(body, status)
        kept = [header for header in headers if not header[0].startswith(b"content-")]
        written = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self.client_response.begin(status, kept + written)
        await self.client_response.finish(body)

    def _error_body(self, body: bytes, status: int) -> bytes:
        """An engine's error in the shape of the API."""
        return engine_error_body(body, status, self._path, self.client_response.request_id)

    async def _forward_stream(self, response: EngineResponse, *, has_alternative: bool) -> None:
        self._head = stream_headers(response.headers)
        if not (self._has_heartbeat or has_alternative):
            await self.begin()
        self._events = EventBuffer()
        timing = self.client_response.timing
        if not self.parts:
            timing.step(FIRST_EVENT)
        try:
            await self._forward_events(response)
        finally:
            timing.end_if(FIRST_EVENT)

    async def _forward_events(self, response: EngineResponse) -> None:
        can_relay = self._resumption is None and self.client_response.is_writable
        relay = self._relay if can_relay else None
        try:
            last = await forward_events(response, self._events, self._send, relay)
            if self._resumption is not None:
                last = self._resumption.splice.feed(last)
        except StreamDiverged:
            raise StreamLost("The engine broke off, and another gave a different answer.") from None
        await self.begin()
        if last and not self.parts:
            self._mark_first_event()
        if self.stream_log is not None:
            self.stream_log.append(last)  # its tokens may have to be counted
        await self.client_response.finish(last)

    def _send(self, events: bytes) -> Awaitable[None]:
        if self._resumption is not None:
            return self._send_spliced(events, self._resumption)
        if not self.client_response.has_begun:
            return self._send_first(events)
        return self._send_part(events)

    async def _send_first(self, events: bytes) -> None:
        await self.begin()
        await self._send_part(events)

    async def _send_spliced(self, events: bytes, resumption: ResumptionPlan) -> None:
        if chunk := resumption.splice.feed(events):
            await self._send_part(chunk)

    def _send_part(self, events: bytes) -> Awaitable[None]:
        if not self.parts:
            self._mark_first_event()
        if self.on_next_part is not None:
            self.on_next_part()
            self.on_next_part = None
        self._record_part(events)
        return self.client_response.send_part(events)

    def _relay(self, events: bytes, chunks: bytes) -> bool:
        """Write on whole events of a stream under way, if neither they nor the client need more."""
        if (
            self.parts
            and self.on_next_part is None
            and ERROR not in events
            and self._events.passes(events)
            and self.client_response.write_part(events, chunks)
        ):
            self._record_part(events)
            return True
        return False

    def _record_part(self, events: bytes) -> None:
        self.parts += 1
        self._last = events
        if self.signs_of_life.learns:
            self.signs_of_life.observe(events)
        if self.stream_log is not None:
            self.stream_log.append(events)

    def _mark_first_event(self) -> None:
        timing = self.client_response.timing
        timing.mark_first_event()
        timing.end_if(FIRST_EVENT)


def _is_event_stream(response: EngineResponse) -> bool:
    return header(response.headers, b"content-type", b"").startswith(b"text/event-stream")


async def read_answer(
    response: EngineResponse, limit: int = BUFFER_LIMIT, *, has_alternative: bool
) -> bytes:
    """An engine's whole answer, or more than `limit` bytes of it.

    Raises:
        UpstreamFailed: it broke off.
        ContextExceeded: the prompt is too long for the model, and there is another one.
    """
    body = await read_all(response, limit)
    is_refusal = has_alternative and response.status == 400
    if is_refusal and any(words.encode() in body for words in TOO_LONG):
        raise ContextExceeded("The prompt is longer than the model's context.")
    return body


async def forward_bytes(
    response: EngineResponse, first: bytes, client_response: ClientResponse
) -> None:
    """Forward an answer that is not a stream of events; `first`: what has been read of it.

    Raises:
        UpstreamFailed: it broke off.
    """
    chunk = first
    while not response.is_finished:
        await client_response.send_part(chunk)
        chunk = await response.read()
    await client_response.finish(chunk)
