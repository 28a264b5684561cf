"""Decides when to give up starting a sleeping model that no request waits for any more.

A model at zero that was woken has a target of one and nothing running: its replica is starting,
finds no room, or fails again and again. While a request waits for the model, Serve keeps the start
going and does not call the policy, so a waiting request is recognized by the gap between two polls.
Clients that gave up may come back: the start goes on for a grace period, and for as long as a start
is known to take.

Giving up also ends a start that keeps failing: at zero, Serve forgets how often it failed.
"""

import math

MIN_TIMEOUT_S, MAX_TIMEOUT_S = 30.0, 60.0
"""Bounds of the grace period, which is otherwise `scale_down_delay_s`. The lower bound also gives a
restarted controller the time to find replicas that run."""
POLL_GAP_S = 5.0
"""Polls are closer together than this while no request waits."""


class WakeTimeout:
    """Grace period of one model's starts."""

    def __init__(self, scale_down_delay_s: float) -> None:
        self._timeout_s = min(max(scale_down_delay_s, MIN_TIMEOUT_S), MAX_TIMEOUT_S)
        self._last_poll_s = -math.inf
        self._start_began_s = -math.inf
        self._last_awaited_s = -math.inf

    def has_expired(
        self, now_s: float, start_s: float, *, is_starting: bool, is_awaited: bool
    ) -> bool:
        """Record a poll and return whether to give up the start.

        `start_s`: seconds that a start takes, 0 if unknown. `is_starting`: a replica is wanted and
        none runs. `is_awaited`: a request waits for it.
        """
        was_awaited = is_awaited or now_s - self._last_poll_s > POLL_GAP_S
        self._last_poll_s = now_s
        if not is_starting:
            self._start_began_s = now_s
        if was_awaited or not is_starting:
            self._last_awaited_s = now_s
        is_late = now_s - self._start_began_s >= start_s
        return is_late and now_s - self._last_awaited_s >= self._timeout_s
