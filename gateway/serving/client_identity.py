"""Who a request comes from: its client's address, and the API key where there is one."""

import socket
from collections.abc import Mapping

from xxhash import xxh3_128_digest

from gateway.asgi import Scope
from gateway.header_names import API_KEY, AUTHORIZATION, FORWARDED_FOR
from gateway.request.tenant import Tenant

KEYS = (AUTHORIZATION, API_KEY)
"""Where OpenAI's and Anthropic's clients put their key."""
ADDRESS_LIMIT = 64
"""Bytes of an address that count."""
NETWORK_BYTES = 8
"""Of an IPv6 address, those of its network, in which a client has any address it wants."""
_IPV4 = bytes(10) + b"\xff\xff"
"""How an IPv4 address begins that is written as an IPv6 one."""


def tenant_of(headers: Mapping[bytes, bytes], scope: Scope, *, is_forwarded: bool) -> Tenant:
    """The tenant of a request, by short names that do not give its key away.

    `is_forwarded`: a proxy of ours names the client in `x-forwarded-for`; otherwise that header is
    the client's to invent.
    """
    address = headers.get(FORWARDED_FOR) if is_forwarded else None
    if not address:
        client = scope.get("client")
        address = client[0].encode() if client else b""
    if b":" in address:
        address = _network(address[:ADDRESS_LIMIT])
    for name in KEYS:
        if key := headers.get(name):
            return Tenant(address[:ADDRESS_LIMIT], xxh3_128_digest(key))
    return Tenant(address[:ADDRESS_LIMIT])


def _network(address: bytes) -> bytes:
    """The network of an IPv6 address, or the IPv4 address that it stands for."""
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition(b"%")[0].decode())
    except (OSError, ValueError):
        return address
    if packed.startswith(_IPV4):
        return socket.inet_ntoa(packed[len(_IPV4) :]).encode()
    return packed[:NETWORK_BYTES]
