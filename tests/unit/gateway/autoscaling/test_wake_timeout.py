"""How long a start goes on that nobody waits for."""

import pytest

from gateway.autoscaling.wake_timeout import WakeTimeout


def given_up_after_s(delay_s: float, start_s: float = 0) -> int:
    """Seconds from the first look at a start that nobody waits for."""
    patience, began_s = WakeTimeout(delay_s), 1000
    patience.is_over(began_s, start_s, is_starting=False, is_waited=False)
    looks = range(began_s, began_s + 1000)
    return next(
        now_s - began_s
        for now_s in looks
        if patience.is_over(now_s, start_s, is_starting=True, is_waited=False)
    )


@pytest.mark.parametrize(("delay_s", "expected_s"), [(0, 30), (45, 45), (300, 60)])
def test_it_goes_on_for_the_delay_within_bounds(delay_s: float, expected_s: int) -> None:
    """Half a minute at least, a minute at most."""
    assert given_up_after_s(delay_s) == expected_s


@pytest.mark.parametrize(("start_s", "expected_s"), [(20, 60), (200, 200)])
def test_it_goes_on_until_it_should_be_done(start_s: float, expected_s: int) -> None:
    """If what a start takes is known."""
    assert given_up_after_s(300, start_s) == expected_s


def test_who_waits_between_two_looks_is_seen_by_the_gap() -> None:
    """Serve does not ask while somebody does."""
    patience = WakeTimeout(0)
    for begun_s in (1000, 1030, 1200):
        looks = range(begun_s, begun_s + 25)
        assert not any(patience.is_over(s, 0, is_starting=True, is_waited=False) for s in looks)


def test_who_waits_at_a_look_begins_it_anew() -> None:
    """As much as one that was seen by the gap."""
    patience = WakeTimeout(0)
    looks = [patience.is_over(s, 0, is_starting=True, is_waited=s == 20) for s in range(51)]
    assert looks == [False] * 50 + [True]


def test_what_runs_or_is_not_wanted_is_not_given_up() -> None:
    """However long it lasts."""
    patience = WakeTimeout(0)
    assert not any(
        patience.is_over(now_s, 0, is_starting=False, is_waited=False) for now_s in range(500)
    )
