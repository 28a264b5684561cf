"""Which headers cross the gateway, and which end at it."""

import uuid
from collections.abc import Iterable

from gateway.asgi import Headers
from gateway.header_names import AUTHORIZATION, REQUEST_ID, TRACEPARENT, TRACESTATE

TO_ENGINE = frozenset(
    {
        b"accept",
        b"anthropic-beta",
        b"anthropic-version",
        b"content-type",
        b"openai-beta",
        TRACEPARENT,
        TRACESTATE,
        b"user-agent",
    }
)
"""All that an engine may see of a client's headers.

A list of what is allowed, because engines take orders from headers (vLLM: priority, data-parallel
rank, session), and new ones come with every release.
"""
NOT_TO_CLIENT = frozenset(
    {
        b"connection",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"server",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
        REQUEST_ID,
    }
)
"""What concerns only the connection to the engine, or is set by the gateway."""
CLOSE = (b"connection", b"close")
"""What ends a connection on which the rest of a request may still come."""
REQUEST_ID_LIMIT = 128
_VISIBLE = bytes(range(0x21, 0x7F))


def to_engine(headers: Iterable[tuple[bytes, bytes]], key: str, request_id: bytes) -> Headers:
    """The headers an engine gets: what it may see of the client's, its own key, the id."""
    passed = [h for h in headers if h[0] in TO_ENGINE and b"\n" not in h[1] and b"\r" not in h[1]]
    passed += ((AUTHORIZATION, b"Bearer " + key.encode()), (REQUEST_ID, request_id))
    return passed


def to_client(headers: Headers) -> Headers:
    """What a client gets of an engine's headers."""
    passed = [header for header in headers if header[0] not in NOT_TO_CLIENT]
    for name, value in headers:
        if name == b"connection" and value.lower() not in (b"close", b"keep-alive"):
            named = {token.strip().lower() for token in value.split(b",")}
            passed = [header for header in passed if header[0] not in named]
    return passed


def sound_request_id(offered: bytes | None) -> bytes:
    """The client's request id if it can be passed on and logged, otherwise a new one."""
    if offered and len(offered) <= REQUEST_ID_LIMIT and not offered.translate(None, _VISIBLE):
        return offered
    return uuid.uuid4().hex.encode()
