"""Headers that the gateway forwards to engines and to clients."""

import uuid
from collections.abc import Iterable

from gateway.asgi import Headers
from gateway.header_names import (
    AUTHORIZATION,
    IS_TRUSTED_PROXY,
    REQUEST_ID,
    TRACEPARENT,
    TRACESTATE,
)

FORWARDED_TO_ENGINE = frozenset(
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
"""Headers of a client that an engine may see.

An allow list, because headers control engines (vLLM: priority, data-parallel rank, session), and
each release adds new ones.
"""
NOT_FORWARDED_TO_CLIENT = frozenset(
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
        IS_TRUSTED_PROXY,
        REQUEST_ID,
    }
)
"""Headers of an engine that concern only its connection, or that the gateway sets itself."""
CONNECTION_CLOSE = (b"connection", b"close")
"""Header that closes a connection on which the rest of a request may still arrive."""
REQUEST_ID_LIMIT = 128
_VISIBLE_ASCII = bytes(range(0x21, 0x7F))


def engine_headers(headers: Iterable[tuple[bytes, bytes]], key: str, request_id: bytes) -> Headers:
    """Return the headers for an engine: the client's allowed ones, the engine's key, the id."""
    forwarded = [
        h
        for h in headers
        if h[0] in FORWARDED_TO_ENGINE and b"\n" not in h[1] and b"\r" not in h[1]
    ]
    forwarded += ((AUTHORIZATION, b"Bearer " + key.encode()), (REQUEST_ID, request_id))
    return forwarded


def client_headers(headers: Headers) -> Headers:
    """Return the headers of an engine's response that its client gets."""
    forwarded = [header for header in headers if header[0] not in NOT_FORWARDED_TO_CLIENT]
    for name, value in headers:
        if name == b"connection" and value.lower() not in (b"close", b"keep-alive"):
            named = {token.strip().lower() for token in value.split(b",")}
            forwarded = [header for header in forwarded if header[0] not in named]
    return forwarded


def ensure_request_id(offered: bytes | None) -> bytes:
    """Return the client's request id if it can be forwarded and logged, otherwise a new one."""
    if offered and len(offered) <= REQUEST_ID_LIMIT and not offered.translate(None, _VISIBLE_ASCII):
        return offered
    return uuid.uuid4().hex.encode()
