"""Among whom a model's time is shared out: API keys or, without keys, client addresses."""

from collections.abc import Mapping

from xxhash import xxh3_128_digest

from gateway.relay.asgi import Scope

KEYS = (b"authorization", b"x-api-key")
"""Where OpenAI's and Anthropic's clients put their key."""
ADDRESS_LIMIT = 64
"""Bytes of an address that count."""


def tenant_of(headers: Mapping[bytes, bytes], scope: Scope, *, is_forwarded: bool) -> bytes:
    """The tenant of a request, by a short name that does not give its key away.

    `is_forwarded`: a proxy of ours names the client in `x-forwarded-for`; otherwise that header is
    the client's to invent.
    """
    for name in KEYS:
        if key := headers.get(name):
            return xxh3_128_digest(key)
    if is_forwarded and (address := headers.get(b"x-forwarded-for")):
        return address[:ADDRESS_LIMIT]
    client = scope.get("client")
    return client[0].encode() if client else b""
