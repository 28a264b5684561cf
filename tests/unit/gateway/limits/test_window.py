"""Tests of the sliding window, against one that remembers every request."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.window import GRAIN_S, MINUTE_S, Bucket, Window


@dataclass
class Remembered:
    """One addition to the window."""

    at_s: float
    requests: int
    tokens: int
    bucket: Bucket = field(repr=False)


step = st.tuples(
    st.floats(0, 90), st.integers(0, 3), st.integers(0, 1000), st.floats(0, 1), st.integers(0, 50)
)


@given(st.lists(step, max_size=60))
def test_a_window_never_counts_less_than_the_last_minute(
    steps: list[tuple[float, int, int, float, int]],
) -> None:
    """The sums are those of the last 60 s at least, and of the last 60.1 s at most.

    Also where the window is moved on only once something may leave it.
    """
    window, seen, now_s = Window(), list[Remembered](), 0.0
    for wait_s, requests, tokens, share, which in steps:
        now_s += wait_s if which % 3 else wait_s / 1000
        if now_s >= window.expires_s:
            window.expire(now_s)
        seen.append(Remembered(now_s, requests, tokens, window.add(now_s, requests, tokens)))
        changed = seen[which % len(seen)]
        back = int(share * changed.tokens)
        if changed.bucket.is_live:
            window.adjust(changed.bucket, 0, -back)
            changed.tokens -= back
        least = [each for each in seen if each.at_s + MINUTE_S > now_s]
        most = [each for each in seen if each.at_s + MINUTE_S + GRAIN_S + 1e-9 > now_s]
        assert sum(e.tokens for e in least) <= window.tokens <= sum(e.tokens for e in most)
        assert sum(e.requests for e in least) <= window.requests <= sum(e.requests for e in most)
    window.expire(now_s + MINUTE_S + GRAIN_S)
    assert (window.requests, window.tokens) == (0, 0)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 100)), min_size=1), st.integers(1, 500))
def test_after_the_wait_so_much_has_left(steps: list[tuple[float, int]], wanted: int) -> None:
    """After `wait_s`, at least so many tokens are gone, and not all of them shortly before."""
    window, now_s = Window(), 0.0
    for wait_s, tokens in steps:
        now_s += wait_s
        window.add(now_s, 1, tokens)
    window.expire(now_s)
    before = window.tokens
    wait_s = window.wait_s(now_s, 0, min(wanted, before))
    window.expire(now_s + wait_s - 1e-6)
    assert before - window.tokens < wanted
    window.expire(now_s + wait_s + 1e-6)  # sums of floats may fall short of the moment
    assert before - window.tokens >= min(wanted, before)


def test_the_reset_is_when_the_last_request_leaves() -> None:
    """Requests and tokens have resets of their own; what was taken back has none."""
    window = Window()
    window.add(0.0, 1, 10)
    late = window.add(30.0, 0, 5)
    assert window.reset_s(40.0) == (20.0, 50.0)
    window.adjust(late, 0, -5)
    assert window.reset_s(40.0) == (20.0, 20.0)
    assert Window().reset_s(1.0) == (0.0, 0.0)


@pytest.mark.parametrize("ages", [(50.0, 10.0), (10.0, 50.0), (30.0, 30.0)])
def test_earlier_requests_expire_by_their_age(ages: tuple[float, ...]) -> None:
    """What is added later, but came earlier, leaves when it is a minute old."""
    window = Window()
    window.add(100.0, 1, 1)
    for age_s in ages:
        window.add_earlier(100.0, age_s, 1, 10)
    window.add_earlier(100.0, MINUTE_S, 1, 1000)
    assert (window.requests, window.tokens) == (3, 21)
    window.expire(100.0 + MINUTE_S - max(ages))
    assert window.tokens == 21 - 10 * ages.count(max(ages))
    window.expire(160.2)
    assert (window.requests, window.tokens) == (0, 0)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 70)), max_size=60))
def test_what_came_earlier_counts_for_a_minute_in_few_buckets(
    steps: list[tuple[float, float]],
) -> None:
    """Among what comes now, whatever the order."""
    window, came, now_s = Window(), list[float](), 1000.0
    for wait_s, age_s in steps:
        now_s += wait_s
        window.expire(now_s)
        window.add(now_s, 1, 1)
        window.add_earlier(now_s, age_s, 1, 1)
        came += [now_s, now_s - age_s]
        least = sum(at_s + MINUTE_S > now_s for at_s in came)
        most = sum(at_s + MINUTE_S + GRAIN_S + 1e-9 > now_s for at_s in came)
        assert least <= window.requests <= most
        ends_s = [bucket.until_s for bucket in window._buckets]
        assert ends_s == sorted(ends_s)


def test_what_many_engines_tell_of_the_last_minute_takes_few_buckets() -> None:
    """However many there are: what follows stays cheap."""
    window = Window()
    for number in range(16):
        for second in range(60):
            for _ in range(20):
                window.add_earlier(1000.0 + number / 999, second + 0.5, 1, 10)
    assert (window.requests, window.tokens) == (16 * 60 * 20, 16 * 60 * 20 * 10)
    assert len(window._buckets) <= 2 * MINUTE_S / GRAIN_S
