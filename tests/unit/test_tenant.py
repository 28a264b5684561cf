"""Who a request comes from, for the sake of fairness."""

import pytest

from gateway.api.tenant import ADDRESS_LIMIT, tenant_of

SCOPE = {"client": ("10.0.0.1", 999)}
FORWARDED = {b"x-forwarded-for": b"203.0.113.9"}


@pytest.mark.parametrize("header", [b"authorization", b"x-api-key"])
def test_a_key_is_a_tenant_wherever_it_comes_from(header: bytes) -> None:
    """The same key is the same tenant, another key another; neither can be read from the name."""
    here = tenant_of({header: b"Bearer secret"}, SCOPE, is_forwarded=False)
    there = tenant_of({header: b"Bearer secret"} | FORWARDED, {}, is_forwarded=True)
    other = tenant_of({header: b"Bearer other"}, SCOPE, is_forwarded=False)
    assert here == there != other
    assert b"secret" not in here


def test_without_a_key_the_address_counts() -> None:
    """The connection's own, unless a proxy of ours stands between."""
    assert tenant_of({}, SCOPE, is_forwarded=False) == b"10.0.0.1"
    assert tenant_of(FORWARDED, SCOPE, is_forwarded=True) == b"203.0.113.9"


def test_a_client_cannot_choose_its_address() -> None:
    """Without our proxy the header is the client's own."""
    assert tenant_of(FORWARDED, SCOPE, is_forwarded=False) == b"10.0.0.1"


def test_names_are_short() -> None:
    """They are kept as long as the tenant waits."""
    long = {b"x-forwarded-for": b"x" * 10_000}
    assert len(tenant_of(long, SCOPE, is_forwarded=True)) == ADDRESS_LIMIT


def test_nobody_is_a_tenant_too() -> None:
    """A server that does not tell the address has all its clients share."""
    assert tenant_of({}, {}, is_forwarded=True) == b""
