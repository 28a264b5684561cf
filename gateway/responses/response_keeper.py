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
    with_length,
    write_event,
)
from gateway.responses.state_calls import StateCalls, StateRefused
from gateway.serving.client_response import ClientResponse
from gateway.serving.state_client import StateUnavailable
from gateway.upstream.sse import event_data

MAX_HELD = 64 << 20
"""Bytes of an answer, or of one event, that are held at the utmost; longer ones are not kept."""
KEEP_TIMEOUT_S = 3.0
"""How long an answer waits to be kept that need not be."""

logger = logging.getLogger(__name__)


class ResponseKeeper:
    """`ResponseFilter` of one response.

    `own_items`: makes the items of its request. `response`: the one that it filters, whose status
    is the real one.
    """

    def __init__(
        self,
        plan: ResponsePlan,
        project: str,
        calls: StateCalls,
        own_items: Callable[[], list[bytes]],
        response: ClientResponse,
    ) -> None:
        self._response = response
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
        self._is_refused = False
        """An error was sent in place of the answer, of which more comes."""

    def passes(self, body: bytes) -> bool:
        """Whether a part of a stream has nothing of the response's object."""
        return not self._held and RESPONSE_MARK not in body

    async def send(self, message: Message, send: Send) -> None:
        """Send on what its client is to see."""
        if message["type"] == "http.response.start":
            await self._begin(message, send)
        elif self._is_refused:
            return
        elif self._start is not None:
            await self._hold(self._start, message, send)
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

    async def _hold(self, start: Message, message: Message, send: Send) -> None:
        self._held += message.get("body", b"")
        is_last = not message.get("more_body", False)
        is_too_large = len(self._held) > MAX_HELD
        if not is_last and not is_too_large:
            return
        self._start = None
        body, status = bytes(self._held), start["status"]
        self._held.clear()
        try:
            body, added = await self._kept_body(body, is_too_large=is_too_large)
        except GatewayError as error:
            self._is_refused = is_last = True
            self._response.status = status = error.status
            body, added = error.body(), error.headers
        headers = with_length(start["headers"], len(body) if is_last else None)
        await send(dict(start, status=status, headers=headers + added))
        await send(dict(message, body=body, more_body=not is_last))

    async def _kept_body(self, body: bytes, *, is_too_large: bool) -> tuple[bytes, Headers]:
        """An answer, or the beginning of one that is too large, and headers to add."""
        fields = None if is_too_large else parsed_object(body)
        if fields is not None:
            body = bytes(to_raw(await self._keep(fields)))
        elif self._plan.must_be_kept:
            raise NotStored(
                "The response cannot be stored, as `store` asks for: it is too large, or not whole."
            )
        is_missing = self._plan.is_kept and (fields is None or not self._is_kept)
        return body, [(NOT_STORED, b"1")] if is_missing else []

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
        except GatewayError as error:
            self._response.status = error.status
            edited = edit_object(fields, self._plan, is_kept=False)
            event.type = "response.failed"
            edited = failed_object(edited, "server_error", error.message)
        return write_event(event, edited)

    async def _keep(self, fields: Fields) -> Fields:
        """Keep the response; returns its object.

        Raises:
            NotStored: it cannot be kept now, and its client has asked for that.
            StateRefused: it can never be.
        """
        plan, calls = self._plan, self._calls
        if self._is_kept and (plan.must_be_kept or not calls.is_away):
            edited = edit_object(fields, plan, is_kept=True)
            kept = kept_response(plan, self._own_items(), edited)
            timeout_s = None if plan.must_be_kept else KEEP_TIMEOUT_S
            try:
                await calls.keep(self._project, kept, timeout_s)
            except (StateUnavailable, StateRefused) as error:
                logger.warning("a response is not stored: %s", error)
                is_final = isinstance(error, StateRefused) and error.status < 500
                if plan.must_be_kept and is_final:
                    raise
            else:
                return edited
        self._is_kept = False
        if plan.must_be_kept:
            raise NotStored(
                "The response was made, but cannot be stored now, as `store` asks for. Try again."
            )
        return edit_object(fields, plan, is_kept=False)
