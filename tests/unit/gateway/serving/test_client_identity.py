"""The identity of clients, for the sake of fairness."""

import pytest

from gateway.request.tenant import ANONYMOUS, Tenant
from gateway.serving.client_identity import ADDRESS_LIMIT, tenant_of

SCOPE = {"client": ("10.0.0.1", 999)}
FORWARDED = {b"x-forwarded-for": b"203.0.113.9"}


@pytest.mark.parametrize("header", [b"authorization", b"x-api-key"])
def test_a_key_is_the_same_in_either_header(header: bytes) -> None:
    """The same key has the same name, another key another; neither can be read from it."""
    here = tenant_of({header: b"Bearer secret"}, SCOPE, is_forwarded=False)
    there = tenant_of({header: b"Bearer secret"} | FORWARDED, {}, is_forwarded=True)
    other = tenant_of({header: b"Bearer other"}, SCOPE, is_forwarded=False)
    assert here.key == there.key != other.key
    assert b"secret" not in here.key
    assert (here.owner, there.owner) == (b"10.0.0.1", b"203.0.113.9")


def test_without_a_key_the_address_counts() -> None:
    """It is the connection's address, unless the gateway's own proxy is in between."""
    assert tenant_of({}, SCOPE, is_forwarded=False) == Tenant(b"10.0.0.1")
    assert tenant_of(FORWARDED, SCOPE, is_forwarded=True) == Tenant(b"203.0.113.9")


def test_a_client_cannot_choose_its_address() -> None:
    """Without our proxy the header is the client's own."""
    assert tenant_of(FORWARDED, SCOPE, is_forwarded=False) == Tenant(b"10.0.0.1")


def test_tenant_names_are_bounded() -> None:
    """They are kept as long as the tenant waits."""
    for address in (b"x" * 10_000, b":" * 10_000):
        long = {b"x-forwarded-for": address}
        assert len(tenant_of(long, SCOPE, is_forwarded=True).owner) == ADDRESS_LIMIT


def test_clients_without_an_address_share_one_tenant() -> None:
    """If the server does not report addresses, all clients share."""
    assert tenant_of({}, {}, is_forwarded=True) == ANONYMOUS


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::9", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("2001:db8:1:2::9", "2001:db8:1:3::9", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("a:b", "a:b", True),
        ("a:b", "a:c", False),
        ("\xe9:b", "\xe9:c", False),
    ],
)
def test_a_network_of_ipv6_is_one_address(one: str, other: str, is_same: bool) -> None:
    """A client has 2**64 addresses in its network; text that is no address is used as it is."""
    first, second = (
        tenant_of({}, {"client": (address, 1)}, is_forwarded=False) for address in (one, other)
    )
    assert (first == second) == is_same
