"""Identity of a client: its project and key, or its address where nobody has verified it."""

import socket
from collections.abc import Mapping

from xxhash import xxh3_128_digest

from gateway.asgi import Scope
from gateway.header_names import API_KEY, AUTHORIZATION, FORWARDED_FOR
from gateway.identity.client import ANONYMOUS_IDENTITY, ClientIdentity
from gateway.request.tenant import Tenant
from gateway.serving.trusted_proxies import TrustedProxies

IDENTITY = "gateway.identity"
"""Entry of a request's ASGI scope: the verified identity of its client."""
KEY_HEADERS = (AUTHORIZATION, API_KEY)
"""Headers in which OpenAI's and Anthropic's clients send their key."""
ADDRESS_LIMIT = 64
"""Bytes of an address that count."""
NETWORK_BYTES = 8
"""Bytes of an IPv6 address that name its network, in which a client has any address it wants."""
NO_PROXIES = TrustedProxies()
_IPV4_TEXT = frozenset(b"0123456789.")
_IPV4 = bytes(10) + b"\xff\xff"
"""Beginning of an IPv6 address that stands for an IPv4 one."""


def identity_in(scope: Scope) -> ClientIdentity:
    """The verified identity of the client whose request has this scope."""
    identity: ClientIdentity = scope.get(IDENTITY, ANONYMOUS_IDENTITY)
    return identity


def tenant_of(
    headers: Mapping[bytes, bytes],
    scope: Scope,
    *,
    is_forwarded: bool,
    proxies: TrustedProxies = NO_PROXIES,
) -> Tenant:
    """The tenant of a request: its project and key, or short names that do not give its key away.

    `headers`: those of `scope`; of several with one name, the last. For the other arguments see
    `address_of`.
    """
    identity = identity_in(scope)
    if not identity.is_open:
        return Tenant(identity.project.id.encode(), identity.key.encode())
    address = address_of(headers, scope, is_forwarded=is_forwarded, proxies=proxies)
    for name in KEY_HEADERS:
        if key := headers.get(name):
            return Tenant(address, xxh3_128_digest(key))
    return Tenant(address)


def address_of(
    headers: Mapping[bytes, bytes],
    scope: Scope,
    *,
    is_forwarded: bool,
    proxies: TrustedProxies = NO_PROXIES,
) -> bytes:
    """The address of a client; of IPv6, its network.

    `is_forwarded`: a proxy of the gateway's own ends `x-forwarded-for` with the address it was
    connected from; otherwise that header is the client's to invent. `proxies`: those that come
    from other proxies are believed.
    """
    address = headers.get(FORWARDED_FOR) if is_forwarded else None
    if not address:
        client = scope.get("client")
        address = client[0].encode() if client else b""
    elif address in proxies:
        address = proxies.client(address, scope["headers"])
    if b":" in address:
        address = _network(address[:ADDRESS_LIMIT])
    return address[:ADDRESS_LIMIT]


def shown_address(address: bytes) -> str:
    """An address as `address_of` returns it, as text."""
    if len(address) == NETWORK_BYTES and not _IPV4_TEXT.issuperset(address):
        return f"{socket.inet_ntop(socket.AF_INET6, address + bytes(16 - NETWORK_BYTES))}/64"
    return address.decode(errors="replace")


def _network(address: bytes) -> bytes:
    """The network of an IPv6 address, or the IPv4 address that it stands for."""
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition(b"%")[0].decode())
    except (OSError, ValueError):
        return address
    if packed.startswith(_IPV4):
        return socket.inet_ntoa(packed[len(_IPV4) :]).encode()
    return packed[:NETWORK_BYTES]
