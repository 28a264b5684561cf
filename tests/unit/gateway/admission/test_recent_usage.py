"""Which tenants have had their share of a model lately."""

import pytest

from gateway.admission.recent_usage import (
    KEPT_S,
    LARGEST_EXPONENT,
    REMEMBERED,
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
def test_who_has_had_the_mean_or_more(
    clock: Clock, started: list[tuple[Tenant, float]], have_had: set[Tenant]
) -> None:
    """Alone nobody has, nor has one that nothing was started for."""
    shares = RecentUsage(clock)
    for tenant, tokens in started:
        shares.start(tenant, tokens)
    known = {tenant for tenant, _ in started}
    assert {tenant for tenant in known | {C, NEW} if shares.has_had(tenant)} == have_had


def test_what_is_long_past_counts_less(clock: Clock) -> None:
    """As many tokens of a while ago are a smaller share than those of now."""
    shares = RecentUsage(clock)
    shares.start(A, 10)
    clock.now_s += WINDOW_S / 2
    shares.start(A, 0)
    shares.start(B, 7)
    assert not shares.has_had(A)
    assert shares.has_had(B)


def test_who_stays_away_is_forgotten(clock: Clock) -> None:
    """The others are alone then, and nothing is kept of it."""
    shares = RecentUsage(clock)
    shares.start(B, 1)
    clock.now_s += KEPT_S / 2
    shares.start(A, 9)
    before = shares.has_had(A)
    clock.now_s += KEPT_S / 2
    assert before
    assert not shares.has_had(A)
    shares.start(C, 9.1)
    assert [shares.has_had(tenant) for tenant in (A, B, C)] == [False, False, True]


def test_invented_names_are_not_all_remembered(clock: Clock) -> None:
    """The oldest ones count no more; another key makes no other address."""
    shares = RecentUsage(clock)
    shares.start(B, 1)
    for number in range(2 * REMEMBERED):
        shares.start(Tenant(b"a", b"%d" % number), 1)
        shares.start(Tenant(b"%d" % number), 1)
    assert len(shares._addresses.parts) == REMEMBERED
    assert len(shares._addresses.parts[b"a"].parts) == REMEMBERED
    assert shares._addresses.all == pytest.approx(3 * REMEMBERED - 1)
    assert shares.has_had(Tenant(b"a", b"new"))


def test_shares_are_told_apart_after_any_time(clock: Clock) -> None:
    """What a token counts for does not grow beyond what can be computed."""
    shares = RecentUsage(clock)
    shares.start(A, 9)
    for _ in range(100):
        clock.now_s += LARGEST_EXPONENT * WINDOW_S / 3 + KEPT_S
        shares.start(A, 5)
        shares.start(B, 9)
        clock.now_s += 1
        assert [shares.has_had(tenant) for tenant in (A, B)] == [False, True]
    clock.now_s += LARGEST_EXPONENT * WINDOW_S - KEPT_S * 50
    for _ in range(60):
        clock.now_s += KEPT_S / 2
        shares.start(A, 5)
        shares.start(B, 9)
        assert [shares.has_had(tenant) for tenant in (A, B)] == [False, True]
