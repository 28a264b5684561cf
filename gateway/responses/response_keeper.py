"""Keeps a response before its client sees its end, and tells the client so.

A whole answer is held back until it is kept. Of a stream, only the events with the response's
object are looked into: they carry its id, and the last one waits until it is kept.
"""

import logging
from collections.abc import Callable

from gateway.asgi import Headers, Message, Send, header
from gateway.errors.gateway_error import GatewayError
from gateway.errors.state import NotStored
from gateway.header_names import NOT_STORED
from gateway.responses.plan import ResponsePlan
from gateway.responses.response_edits import (
    ENDS,
    RESPONSE_MARK,
    Fields,
    edit_object,
    failed_object,
    kept_response,
    parsed_event,
    parsed_object,
    to_raw,
    write_event,
)
from gateway.responses.state_calls import StateCalls
from gateway.serving.state_client import StateUnavailable
from gateway.upstream.sse import event_data

MAX_HELD = 64 << 20
"""Bytes of an answer, or of one event, that are held at the utmost; longer ones are not kept."""

logger = logging.getLogger(__name__)


class ResponseKeeper:
    """`ResponseFilter` of one response; `own_items`: makes the items of its request."""

    def __init__(
        self,
        plan: ResponsePlan,
        project: str,
        calls: StateCalls,
        own_items: Callable[[], list[bytes]],
    ) -> None:
        self._plan = plan
        self._project = project
        self._calls = calls
        self._own_items = own_items
        # Whether a stream can be kept is said in its first event.
        self._is_kept = plan.is_kept and (plan.must_be_kept or not calls.is_away)
        self._start: Message | None = None
        """The start of a whole answer that is held back."""
        self._held = bytearray()
        self._is_edited = False

    def passes(self, body: bytes) -> bool:
        """Whether a part of a stream has nothing of the response's object."""
        return not self._held and RESPONSE_MARK not in body

    async def send(self, message: Message, send: Send) -> None:
        """Send on what its client is to see."""
        if message["type"] == "http.response.start":
            await self._begin(message, send)
        elif self._start is not None:
            await self._hold(message, send)
        elif self._is_edited:
            message = dict(message, body=await self._edited(message))
            await send(message)
        else:
            await send(message)

    async def _begin(self, message: Message, send: Send) -> None:
        kind = header(message["headers"], b"content-type", b"")
        is_good = message["status"] == 200
        if is_good and kind.startswith(b"application/json"):
            self._start = message
            return
        self._is_edited = is_good and kind.startswith(b"text/event-stream")
        await send(message)

    async def _hold(self, message: Message, send: Send) -> None:
        self._held += message.get("body", b"")
        start = self._start
        is_last = not message.get("more_body", False)
        if start is None or not (is_last or len(self._held) > MAX_HELD):
            return
        self._start = None
        body, status = bytes(self._held), start["status"]
        added: Headers = []
        self._held.clear()
        fields = parsed_object(body) if is_last else None
        if fields is not None:
            try:
                body, added = await self._kept_body(fields)
            except NotStored as error:
                status, body, added = error.status, error.body(), error.headers
        headers = _resized(start["headers"], len(body) if is_last else None)
        await send(dict(start, status=status, headers=headers + added))
        await send(dict(message, body=body))

    async def _kept_body(self, fields: Fields) -> tuple[bytes, Headers]:
        edited = await self._keep(fields)
        is_missing = self._plan.is_kept and not self._is_kept
        return bytes(to_raw(edited)), [(NOT_STORED, b"1")] if is_missing else []

    async def _edited(self, message: Message) -> bytes:
        """The events of a message as its client sees them; what is no whole event yet waits."""
        body: bytes = bytes(self._held) + message.get("body", b"")
        self._held.clear()
        if RESPONSE_MARK not in body:
            return body
        if message.get("more_body", False):
            whole, _, rest = body.rpartition(b"\n\n")
            if rest and (RESPONSE_MARK in rest and len(rest) <= MAX_HELD):
                self._held += rest
                body = whole + b"\n\n" if whole else b""
        parts = body.split(b"\n\n")
        for place, part in enumerate(parts):
            if RESPONSE_MARK in part:
                parts[place] = await self._edited_event(part)
        return b"\n\n".join(parts)

    async def _edited_event(self, written: bytes) -> bytes:
        event = parsed_event(event_data(written))
        fields = None if event is None else parsed_object(event.response)
        if event is None or fields is None:
            return written
        if event.type not in ENDS:
            return write_event(event, edit_object(fields, self._plan, is_kept=self._is_kept))
        try:
            edited = await self._keep(fields)
        except NotStored as error:
            edited = edit_object(fields, self._plan, is_kept=False)
            event.type = "response.failed"
            edited = failed_object(edited, "server_error", error.message)
        return write_event(event, edited)

    async def _keep(self, fields: Fields) -> Fields:
        """Keep the response; returns its object.

        Raises:
            NotStored: it cannot be kept, and its client has asked for that.
        """
        plan = self._plan
        if self._is_kept:
            edited = edit_object(fields, plan, is_kept=True)
            try:
                kept = kept_response(plan, self._own_items(), edited)
                await self._calls.keep(self._project, kept)
            except (StateUnavailable, GatewayError) as error:
                logger.warning("a response is not stored: %s", error)
                self._is_kept = False
            else:
                return edited
        if plan.must_be_kept:
            raise NotStored(
                "The response was made, but cannot be stored now, as `store` asks for. Try again."
            )
        return edit_object(fields, plan, is_kept=False)


def _resized(headers: Headers, length: int | None) -> Headers:
    kept = [each for each in headers if each[0] != b"content-length"]
    return kept if length is None else [*kept, (b"content-length", b"%d" % length)]
