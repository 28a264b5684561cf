"""Reading a request's body, as far as it may be read, and no slower than it may come."""

import asyncio
from dataclasses import dataclass

from gateway.asgi import Receive
from gateway.errors import BodyTooLarge, BodyTooSlow, InvalidRequest

GRACE_S = 25.0
"""Seconds that a body may fall behind its pace: what a line takes to come back."""
PACE_BYTES_PER_S = 8 * 1024
"""At which a body must come: an upload over a poor mobile line is faster."""


@dataclass(slots=True)
class BodyLimits:
    """What requests may ask for; may be changed while the gateway runs."""

    max_body_mb: float = 32.0

    @property
    def max_body_bytes(self) -> int:
        """The limit of a body, in bytes."""
        return int(self.max_body_mb * 1024 * 1024)


class ClientDisconnected(Exception):
    """The client left before its request was complete."""


async def read_body(receive: Receive, content_length: bytes | None, limits: BodyLimits) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: it is, or says it will be, over the limit; the rest has not been read.
        BodyTooSlow: it does not come, or comes too slowly.
        InvalidRequest: its length is no number.
        ClientGone: it never came.
    """
    if content_length is not None and _length(content_length) > limits.max_body_bytes:
        raise _too_large(limits)
    loop = asyncio.get_running_loop()
    due_s = loop.time() + GRACE_S
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(due_s) as timeout:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                part = message.get("body", b"")
                size += len(part)
                if size > limits.max_body_bytes:
                    raise _too_large(limits)
                parts.append(part)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                # No credit for haste: megabytes that came at once must not be held for an hour.
                due_s = min(due_s + len(part) / PACE_BYTES_PER_S, loop.time() + GRACE_S)
                timeout.reschedule(due_s)
    except TimeoutError:
        raise BodyTooSlow(
            f"The request body did not arrive in time: {size} bytes of it came."
        ) from None


def _length(content_length: bytes) -> int:
    # More digits than any length has would take Python long to turn into a number.
    if not content_length.isdigit() or len(content_length) > 18:
        raise InvalidRequest("The header `content-length` must be a number of bytes.")
    return int(content_length)


def _too_large(limits: BodyLimits) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than the {limits.max_body_mb:g} MiB allowed.")
