"""Which address counts as the client's behind proxies that are trusted."""

import pytest

from gateway.request.tenant import Tenant
from gateway.serving.client_identity import tenant_of
from gateway.serving.trusted_proxies import CACHE_SIZE, TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["203.0.113.9", "10.0.0.1"], "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9", "10.0.0.1"], "203.0.113.9"),
        (["203.0.113.9,10.0.0.2 , 192.0.2.7", "10.0.0.1"], "203.0.113.9"),
        (["6.6.6.6", "203.0.113.9", "10.0.0.1"], "203.0.113.9"),
        (["203.0.113.9:4711", "10.0.0.1"], "203.0.113.9"),
        (["203.0.113.9", "10.0.0.2", "10.0.0.1"], "203.0.113.9"),
        (["6.6.6.6, unknown", "10.0.0.1"], "10.0.0.1"),
        (["6.6.6.6, unknown, 10.0.0.2", "10.0.0.1"], "10.0.0.2"),
        (["10.0.0.3, 10.0.0.2", "10.0.0.1"], "10.0.0.3"),
        (["10.0.0.1"], "10.0.0.1"),
        (["203.0.113.9", "::ffff:10.0.0.1"], "203.0.113.9"),
        (["6.6.6.6", "203.0.113.1"], "203.0.113.1"),
        (["6.6.6.6", "192.0.2.8"], "192.0.2.8"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(
    lines: list[str], client: str
) -> None:
    """What stands before it, the client may have invented."""
    headers = [(b"x-forwarded-for", line.encode()) for line in lines]

    tenant = tenant_of(dict(headers), {"headers": headers}, is_forwarded=True, proxies=PROXIES)

    assert tenant == Tenant(client.encode())


def test_forwarded_ipv6_addresses_count_as_networks() -> None:
    """In brackets, with a port or without."""
    tenants = []
    for item in (b"[2001:db8::1]:4711", b"2001:db8::2", b"[2001:db8::3]"):
        headers = [(b"x-forwarded-for", item), (b"x-forwarded-for", b"10.0.0.1")]
        scope = {"headers": headers}
        tenants.append(tenant_of(dict(headers), scope, is_forwarded=True, proxies=PROXIES))

    assert len(set(tenants)) == 1
    assert tenants[0] != Tenant(b"10.0.0.1")


def test_nobody_is_trusted_without_a_proxy_of_the_gateways_own() -> None:
    """The header is the client's to invent, whatever the config says."""
    headers = [(b"x-forwarded-for", b"203.0.113.9")]
    scope = {"headers": headers, "client": ("10.0.0.1", 1)}

    tenant = tenant_of(dict(headers), scope, is_forwarded=False, proxies=PROXIES)

    assert tenant == Tenant(b"10.0.0.1")


def test_many_addresses_take_bounded_memory() -> None:
    """The answers of the last ones are kept."""
    for number in range(3 * CACHE_SIZE):
        assert (b"11.0.%d.%d" % divmod(number, 256)) not in PROXIES

    assert len(PROXIES._known) <= CACHE_SIZE
