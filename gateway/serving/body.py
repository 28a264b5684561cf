"""Reader of request bodies, which limits how large they are and how slowly they come."""

import asyncio

from gateway.asgi import Receive
from gateway.errors import BodyTooLarge, BodyTooSlow, InvalidRequest

GRACE_S = 25.0
"""Seconds that a body may fall behind its pace: enough for a connection to come back."""
PACE_BYTES_PER_S = 8 * 1024
"""Pace at which a body must come: an upload over a poor mobile connection is faster."""
MIB = 1024 * 1024


class ClientDisconnected(Exception):
    """The client left before its response was complete."""


async def read_body(receive: Receive, content_length: bytes | None, max_body_mb: float) -> bytes:
    """The whole body, of at most `max_body_mb` MiB.

    Raises:
        BodyTooLarge: it is over the limit, or announced to be; the rest has not been read.
        BodyTooSlow: it does not arrive, or too slowly.
        InvalidRequest: its length is no number.
        ClientDisconnected: the client has left.
    """
    limit_bytes = int(max_body_mb * MIB)
    if content_length is not None and _length(content_length) > limit_bytes:
        raise _too_large(max_body_mb)
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + GRACE_S
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(deadline_s) as timeout:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                part = message.get("body", b"")
                size += len(part)
                if size > limit_bytes:
                    raise _too_large(max_body_mb)
                parts.append(part)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                # No credit for haste: megabytes that came at once must not be held for an hour.
                deadline_s = min(deadline_s + len(part) / PACE_BYTES_PER_S, loop.time() + GRACE_S)
                timeout.reschedule(deadline_s)
    except TimeoutError:
        raise BodyTooSlow(
            f"The request body did not arrive in time: {size} bytes of it came."
        ) from None


def _length(content_length: bytes) -> int:
    # Python takes long to parse a number of very many digits.
    if not content_length.isdigit() or len(content_length) > 18:
        raise InvalidRequest("The header `content-length` must be a number of bytes.")
    return int(content_length)


def _too_large(max_body_mb: float) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than the {max_body_mb:g} MiB allowed.")
