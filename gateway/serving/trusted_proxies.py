"""Proxies in front of the gateway whose `x-forwarded-for` is believed."""

import ipaddress
from collections.abc import Iterable

from gateway.asgi import Headers
from gateway.header_names import FORWARDED_FOR

CACHE_SIZE = 1024
"""Addresses whose answer is kept; each connection asks about the one it comes from."""


class TrustedProxies:
    """Addresses of proxies, from a config's list of addresses and networks."""

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [ipaddress.ip_network(each) for each in networks]
        self._known: dict[bytes, bool] = {}

    def __contains__(self, address: bytes) -> bool:
        """Whether `address` is one of these proxies; False for what is no address."""
        if not self._networks:
            return False
        is_known = self._known.get(address)
        if is_known is None:
            if len(self._known) >= CACHE_SIZE:
                self._known.clear()
            is_known = self._known[address] = self._has(address)
        return is_known

    def client(self, sender: bytes, headers: Headers) -> bytes:
        """The client's address: the last one forwarded that is none of these proxies.

        `sender`: the address that the request came from, which is one of them. `headers`: with all
        lines of `x-forwarded-for`. What stands before the client's address is its own to invent.
        """
        lines = [value for name, value in headers if name == FORWARDED_FOR]
        client = sender
        for item in reversed(b",".join(lines).split(b",")):
            address = _without_port(item.strip())
            if _parsed(address) is None:
                break
            client = address
            if address not in self:
                break
        return client

    def _has(self, address: bytes) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def _parsed(address: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.decode())
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return parsed if mapped is None else mapped


def _without_port(item: bytes) -> bytes:
    """`item` without the port that some proxies add."""
    if item.startswith(b"["):
        return item[1:].partition(b"]")[0]
    return item.partition(b":")[0] if item.count(b":") == 1 else item
