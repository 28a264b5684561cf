"""Tests of the headers that tell what limits leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.project import RateLimit
from gateway.limits.meter import Meter
from gateway.limits.rate_headers import duration, rate_headers
from gateway.limits.rate_limiter import RateLimiter, left_beside


def meter(requests: int | None = None, tokens: int | None = None) -> Meter:
    """A meter with these limits."""
    meter = Meter("team", (None, None))
    meter.set_limits([RateLimit(requests_per_minute=requests, tokens_per_minute=tokens)])
    return meter


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.12, "120ms"),
        (1, "1s"),
        (6.25, "6.25s"),
        (60, "1m0s"),
        (90.5, "1m30.5s"),
        (3725, "1h2m5s"),
    ],
)
def test_times_are_written_as_openai_does(seconds: float, text: str) -> None:
    """Milliseconds below a second, then hours, minutes and seconds."""
    assert duration(seconds).decode() == text


def test_the_limit_that_leaves_least_is_told() -> None:
    """Of several limits, each header tells of the one with the least left."""
    wide, narrow = meter(requests=100, tokens=500), meter(requests=5)
    for each in (wide, narrow):
        each.add(0.0, 1, 20)
    assert dict(rate_headers(left_beside([wide, narrow], 10.0), 10.0)) == {
        b"x-ratelimit-limit-requests": b"5",
        b"x-ratelimit-remaining-requests": b"4",
        b"x-ratelimit-reset-requests": b"50s",
        b"x-ratelimit-limit-tokens": b"500",
        b"x-ratelimit-remaining-tokens": b"480",
        b"x-ratelimit-reset-tokens": b"50s",
    }


def test_anthropics_clients_get_their_own_names_and_times() -> None:
    """Resets are times of UTC there; a limit that is not there is not told."""
    only = meter(tokens=10)
    only.add(0.0, 1, 25)
    assert dict(rate_headers(left_beside([only], 0.0), 0.0, lambda: 1_800_000_000.0)) == {
        b"anthropic-ratelimit-tokens-limit": b"10",
        b"anthropic-ratelimit-tokens-remaining": b"0",
        b"anthropic-ratelimit-tokens-reset": b"2027-01-15T08:01:00Z",
    }


limits = st.tuples(st.none() | st.integers(50, 90), st.none() | st.integers(500, 900))
before = st.lists(st.integers(0, 50), max_size=9)


@given(st.lists(st.tuples(limits, before), min_size=1, max_size=3), st.booleans())
def test_an_admitted_request_is_told_what_it_leaves(
    use: list[tuple[tuple[int | None, int | None], list[int]]], is_anthropics: bool
) -> None:
    """As if it had been set aside, and the headers made then."""
    meters = [meter(*limits) for limits, _ in use]
    for each, (_, sizes) in zip(meters, use, strict=True):
        for tokens in sizes:
            each.add(0.0, 1, tokens)
    time_of_day = (lambda: 1_800_000_000.0) if is_anthropics else None
    hold = RateLimiter(lambda: 10.0).admit(meters, "m", 20, 10)
    assert hold.left is not None
    told = rate_headers(hold.left, None, time_of_day)
    hold.begin()
    assert told == rate_headers(left_beside(meters, 10.0), 10.0, time_of_day)
