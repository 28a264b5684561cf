"""Reader of request bodies, which limits how large they are and how slowly they come."""

import asyncio
import sys
from collections.abc import AsyncIterator

from gateway.asgi import Message, Receive
from gateway.errors.limits import BodyBudgetExceeded
from gateway.errors.request import BodyTooLarge, BodyTooSlow, InvalidRequest
from gateway.serving.body_budget import MIB, RETRY_AFTER_S, BodyBudget, HeldBody

GRACE_S = 25.0
"""Seconds that a body may fall behind its pace: enough for a connection to come back."""
PACE_BYTES_PER_S = 8 * 1024
"""Pace at which a body must come: an upload over a poor mobile connection is faster."""
LARGE_BODY = MIB
LARGE_PACE_BYTES_PER_S = 64 * 1024
"""Pace of what comes after the first `LARGE_BODY` bytes: nobody holds megabytes for an hour."""


class ClientDisconnected(Exception):
    """The client left before its response was complete."""


class BodyPace:
    """How long the next part of a body may take; time that we take ourselves does not count."""

    def __init__(self) -> None:
        self.came = 0
        """Bytes that have arrived."""
        self.left_s = GRACE_S
        """Seconds that the next part may take."""

    def arrive(self, size: int, waited_s: float) -> None:
        """Count a part of `size` bytes, for which we have waited.

        No credit for haste: megabytes that came at once must not be held for an hour.
        """
        pace = PACE_BYTES_PER_S if self.came <= LARGE_BODY else LARGE_PACE_BYTES_PER_S
        self.came += size
        self.left_s = min(self.left_s - waited_s + size / pace, GRACE_S)


async def body_parts(receive: Receive) -> AsyncIterator[bytes]:
    """The parts of a body as they come, at the pace that bodies must have.

    Raises:
        BodyTooSlow: it does not arrive, or too slowly.
        ClientDisconnected: the client has left.
    """
    loop, pace = asyncio.get_running_loop(), BodyPace()
    more = True
    while more:
        began_s = loop.time()
        try:
            async with asyncio.timeout(pace.left_s):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow(
                f"The request body did not arrive in time: {pace.came} bytes of it came."
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        part, more = message.get("body", b""), message.get("more_body", False)
        pace.arrive(len(part), loop.time() - began_s)
        if part:
            yield part


async def read_body(
    receive: Receive,
    content_length: bytes | None,
    max_body_mb: float,
    held: HeldBody | None = None,
) -> bytes:
    """The whole body, of at most `max_body_mb` MiB; it counts as `held` from now on.

    Raises:
        BodyTooLarge: it is over the limit, or announced to be; the rest has not been read.
        BodyTooSlow: it does not arrive, or too slowly.
        BodyBudgetExceeded: the budget has no room for it.
        InvalidRequest: its length is no number.
        ClientDisconnected: the client has left.
    """
    held = BodyBudget(lambda: sys.maxsize).open(b"") if held is None else held
    if content_length is not None:
        length = _length(content_length)
        if length > max_body_mb * MIB:
            raise body_too_large(max_body_mb)
        await held.expect(length)
    try:
        return await _read_parts(receive, max_body_mb, held)
    except TimeoutError:
        if held.is_given_up:
            raise BodyBudgetExceeded(
                "The request body came slowly, and newer ones from your address needed its room.",
                RETRY_AFTER_S,
            ) from None
        raise BodyTooSlow(
            f"The request body did not arrive in time: {held.came} bytes of it came."
        ) from None


async def _read_parts(receive: Receive, max_body_mb: float, held: HeldBody) -> bytes:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + GRACE_S
    parts: list[bytes] = []
    async with asyncio.timeout_at(deadline_s) as timeout:
        held.begin(timeout)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            part = message.get("body", b"")
            if held.came + len(part) > max_body_mb * MIB:
                raise body_too_large(max_body_mb)
            parts.append(part)
            if not message.get("more_body", False):
                held.complete(len(part))
                return parts[0] if len(parts) == 1 else b"".join(parts)
            held.arrive(len(part))
            # No credit for haste: megabytes that came at once must not be held for an hour.
            pace = PACE_BYTES_PER_S if held.came <= LARGE_BODY else LARGE_PACE_BYTES_PER_S
            deadline_s = min(deadline_s + len(part) / pace, loop.time() + GRACE_S)
            timeout.reschedule(deadline_s)


def _length(content_length: bytes) -> int:
    # Python takes long to parse a number of very many digits.
    if not content_length.isdigit() or len(content_length) > 18:
        raise InvalidRequest("The header `content-length` must be a number of bytes.")
    return int(content_length)


def body_too_large(max_body_mb: float) -> BodyTooLarge:
    """The error for a body over the limit."""
    return BodyTooLarge(f"The request body is larger than the {max_body_mb:g} MiB allowed.")


def replayed(body: bytes, receive: Receive) -> Receive:
    """What is received once more of a request whose body has been read: `body`, then the rest."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
