"""Headers that the gateway forwards to engines and to clients."""

import os
from collections.abc import Iterable

from gateway.asgi import Headers
from gateway.header_names import (
    ACCEL_BUFFERING,
    ANTHROPIC_REQUEST_ID,
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
        b"access-control-allow-credentials",
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-allow-origin",
        b"access-control-expose-headers",
        b"access-control-max-age",
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
        ANTHROPIC_REQUEST_ID,
        IS_TRUSTED_PROXY,
        REQUEST_ID,
    }
)
"""Headers of an engine that concern only its connection, or that the gateway sets itself."""
UNBUFFERED: Headers = [(b"cache-control", b"no-cache"), (ACCEL_BUFFERING, b"no")]
"""Headers that keep proxies, nginx among them, from holding back the events of a stream."""
UNBUFFERED_NAMES = frozenset(name for name, _ in UNBUFFERED)
CONNECTION_CLOSE = (b"connection", b"close")
"""Header that closes a connection on which the rest of a request may still arrive."""
REQUEST_ID_LIMIT = 128
REQUEST_ID_BYTES = 16
"""Random bytes of an id that the gateway makes."""
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
        if name == b"vary":
            forwarded = _without_origin(forwarded)
        elif name == b"connection" and value.lower() not in (b"close", b"keep-alive"):
            named = {token.strip().lower() for token in value.split(b",")}
            forwarded = [header for header in forwarded if header[0] not in named]
    return forwarded


def stream_headers(headers: Headers) -> Headers:
    """Return the headers of a stream of events that its client gets, for whatever lies between."""
    kept = [header for header in client_headers(headers) if header[0] not in UNBUFFERED_NAMES]
    return kept + UNBUFFERED


def _without_origin(headers: Headers) -> Headers:
    """The headers without the origin as a reason to vary: the gateway's own CORS decides that."""
    varied = b",".join(value for name, value in headers if name == b"vary").split(b",")
    reasons = [
        reason.strip() for reason in varied if reason.strip().lower() not in (b"", b"origin")
    ]
    others = [header for header in headers if header[0] != b"vary"]
    return [*others, (b"vary", b", ".join(reasons))] if reasons else others


def ensure_request_id(offered: bytes | None) -> bytes:
    """Return the client's request id if it can be forwarded and logged, otherwise a new one."""
    if offered and len(offered) <= REQUEST_ID_LIMIT and not offered.translate(None, _VISIBLE_ASCII):
        return offered
    return os.urandom(REQUEST_ID_BYTES).hex().encode()
