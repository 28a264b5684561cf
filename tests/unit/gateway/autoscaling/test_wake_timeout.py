"""WakeTimeout: how long a start goes on that no request waits for."""

import pytest

from gateway.autoscaling.wake_timeout import WakeTimeout


def expires_after_s(delay_s: float, start_s: float = 0) -> int:
    """Seconds from the start's first poll until it is given up, with no request waiting."""
    timeout, began_s = WakeTimeout(delay_s), 1000
    timeout.has_expired(began_s, start_s, is_starting=False, is_awaited=False)
    polls = range(began_s, began_s + 1000)
    return next(
        now_s - began_s
        for now_s in polls
        if timeout.has_expired(now_s, start_s, is_starting=True, is_awaited=False)
    )


@pytest.mark.parametrize(("delay_s", "expected_s"), [(0, 30), (45, 45), (300, 60)])
def test_a_start_goes_on_for_the_scale_down_delay_within_bounds(
    delay_s: float, expected_s: int
) -> None:
    """The grace period is at least half a minute and at most a minute."""
    assert expires_after_s(delay_s) == expected_s


@pytest.mark.parametrize(("start_s", "expected_s"), [(20, 60), (200, 200)])
def test_a_start_goes_on_for_as_long_as_a_start_takes(start_s: float, expected_s: int) -> None:
    """A start of known length is not given up before it should be done."""
    assert expires_after_s(300, start_s) == expected_s


def test_a_gap_between_polls_shows_that_a_request_waited() -> None:
    """Serve does not poll while a request waits, so the grace period begins again."""
    timeout = WakeTimeout(0)
    for began_s in (1000, 1030, 1200):
        polls = range(began_s, began_s + 25)
        assert not any(
            timeout.has_expired(now_s, 0, is_starting=True, is_awaited=False) for now_s in polls
        )


def test_a_request_that_waits_at_a_poll_restarts_the_grace_period() -> None:
    """It counts as much as one seen by the gap."""
    timeout = WakeTimeout(0)
    expired = [
        timeout.has_expired(now_s, 0, is_starting=True, is_awaited=now_s == 20)
        for now_s in range(51)
    ]
    assert expired == [False] * 50 + [True]


def test_a_model_that_runs_or_sleeps_never_expires() -> None:
    """Without a start in progress there is nothing to give up, however long that lasts."""
    timeout = WakeTimeout(0)
    assert not any(
        timeout.has_expired(now_s, 0, is_starting=False, is_awaited=False) for now_s in range(500)
    )
