"""Which tenants have had their share of a model lately."""

import pytest

from gateway.admission.shares import KEPT_S, WINDOW_S, Shares
from tests.unit.conftest import Clock

A, B, C = b"a", b"b", b"c"


@pytest.mark.parametrize(
    ("started", "have_had"),
    [
        ([], set()),
        ([(A, 9.0)], set()),
        ([(A, 9.0), (B, 1.0)], {A}),
        ([(A, 5.0), (B, 5.0)], {A, B}),
        ([(A, 1.0), (B, 9.0), (A, 9.0)], {A}),
        ([(A, 6.0), (B, 5.0), (C, 1.0)], {A, B}),
    ],
)
def test_who_has_had_the_mean_or_more(
    clock: Clock, started: list[tuple[bytes, float]], have_had: set[bytes]
) -> None:
    """Alone nobody has, nor has one that nothing was started for."""
    shares = Shares(clock)
    for tenant, tokens in started:
        shares.start(tenant, tokens)
    assert {tenant for tenant in (A, B, C, b"new") if shares.has_had(tenant)} == have_had


def test_what_is_long_past_counts_less(clock: Clock) -> None:
    """As many tokens of a while ago are a smaller share than those of now."""
    shares = Shares(clock)
    shares.start(A, 10)
    clock.now_s += WINDOW_S / 2
    shares.start(A, 0)
    shares.start(B, 7)
    assert not shares.has_had(A)
    assert shares.has_had(B)


def test_who_stays_away_is_forgotten(clock: Clock) -> None:
    """The others are alone then, and nothing is kept of it."""
    shares = Shares(clock)
    shares.start(B, 1)
    clock.now_s += KEPT_S / 2
    shares.start(A, 9)
    before = shares.has_had(A)
    clock.now_s += KEPT_S / 2
    assert before
    assert not shares.has_had(A)
    shares.start(C, 9.1)
    assert [shares.has_had(tenant) for tenant in (A, B, C)] == [False, False, True]
