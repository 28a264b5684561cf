"""Recent usage: which tenants are over their fair share of a model."""

import pytest

from gateway.admission.recent_usage import (
    KEPT_S,
    MAX_EXPONENT,
    MAX_PARTS,
    WINDOW_S,
    RecentUsage,
)
from gateway.request.tenant import Tenant
from tests.unit.conftest import Clock

A, B, C = Tenant(b"a"), Tenant(b"b"), Tenant(b"c")
NEW = Tenant(b"new")
A1, A2 = Tenant(b"a", b"1"), Tenant(b"a", b"2")


@pytest.mark.parametrize(
    ("started", "have_had"),
    [
        ([], set()),
        ([(A, 9.0)], set()),
        ([(A, 9.0), (B, 1.0)], {A}),
        ([(A, 5.0), (B, 5.0)], {A, B}),
        ([(A, 1.0), (B, 9.0), (A, 9.0)], {A}),
        ([(A, 6.0), (B, 5.0), (C, 1.0)], {A, B}),
        ([(A1, 6.0), (A2, 5.0)], {A1}),  # at one address between its keys
        ([(A1, 6.0), (A2, 5.0), (B, 1.0)], {A1, A2}),  # the address has had it
        ([(A1, 6.0), (A2, 5.0), (B, 99.0)], {A1, B}),
    ],
)
def test_a_part_with_the_mean_or_more_is_over_its_share(
    clock: Clock, started: list[tuple[Tenant, float]], have_had: set[Tenant]
) -> None:
    """A part that is alone is not, nor is one for which nothing was started."""
    usage = RecentUsage(clock)
    for tenant, tokens in started:
        usage.record(tenant, tokens)
    known = {tenant for tenant, _ in started}
    assert {tenant for tenant in known | {C, NEW} if usage.is_over_fair_share(tenant)} == have_had


def test_old_usage_counts_less(clock: Clock) -> None:
    """The same tokens of a while ago are a smaller share than those of now."""
    usage = RecentUsage(clock)
    usage.record(A, 10)
    clock.now_s += WINDOW_S / 2
    usage.record(A, 0)
    usage.record(B, 7)
    assert not usage.is_over_fair_share(A)
    assert usage.is_over_fair_share(B)


def test_a_tenant_that_stays_away_is_dropped(clock: Clock) -> None:
    """The others are alone then, and nothing is kept of it."""
    usage = RecentUsage(clock)
    usage.record(B, 1)
    clock.now_s += KEPT_S / 2
    usage.record(A, 9)
    before = usage.is_over_fair_share(A)
    clock.now_s += KEPT_S / 2
    assert before
    assert not usage.is_over_fair_share(A)
    usage.record(C, 9.1)
    assert [usage.is_over_fair_share(tenant) for tenant in (A, B, C)] == [False, False, True]


def test_the_number_of_remembered_names_is_bounded(clock: Clock) -> None:
    """The oldest are dropped; a new key does not make a new address."""
    usage = RecentUsage(clock)
    usage.record(B, 1)
    for number in range(2 * MAX_PARTS):
        usage.record(Tenant(b"a", b"%d" % number), 1)
        usage.record(Tenant(b"%d" % number), 1)
    assert len(usage._addresses.parts) == MAX_PARTS
    assert len(usage._addresses.parts[b"a"].parts) == MAX_PARTS
    assert usage._addresses.all_tokens == pytest.approx(3 * MAX_PARTS - 1)
    assert usage.is_over_fair_share(Tenant(b"a", b"new"))


def test_shares_stay_distinct_after_any_time(clock: Clock) -> None:
    """The scale of new tokens does not grow beyond what can be computed."""
    usage = RecentUsage(clock)
    usage.record(A, 9)
    for _ in range(100):
        clock.now_s += MAX_EXPONENT * WINDOW_S / 3 + KEPT_S
        usage.record(A, 5)
        usage.record(B, 9)
        clock.now_s += 1
        assert [usage.is_over_fair_share(tenant) for tenant in (A, B)] == [False, True]
    clock.now_s += MAX_EXPONENT * WINDOW_S - KEPT_S * 50
    for _ in range(60):
        clock.now_s += KEPT_S / 2
        usage.record(A, 5)
        usage.record(B, 9)
        assert [usage.is_over_fair_share(tenant) for tenant in (A, B)] == [False, True]
