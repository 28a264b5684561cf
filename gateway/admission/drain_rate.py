"""Rate at which a queue drains, measured while requests wait in it."""

import math
from collections.abc import Callable

WINDOW_S = 30.0
"""Age at which a start counts for a third of a new one."""
MIN_STARTS = 3.0
"""Starts within the window below which there is no estimate."""


class DrainRate:
    """Starts over busy time, both decaying exponentially. `now` is in seconds; O(1)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._updated_s = now()
        self._starts = 0.0
        self._busy_s = 0.0
        self._is_busy = False

    def resume(self) -> None:
        """Count time as busy from now on: the queue is no longer empty."""
        self._decay()
        self._is_busy = True

    def pause(self) -> None:
        """Stop counting time as busy: the queue is empty."""
        self._decay()
        self._is_busy = False

    def record_start(self) -> None:
        """Count a queued request that has been started."""
        self._decay()
        self._starts += 1

    @property
    def per_s(self) -> float | None:
        """Starts per second; None while there are too few for an estimate."""
        self._decay()
        if self._starts < MIN_STARTS or self._busy_s <= 0:
            return None
        return self._starts / self._busy_s

    def _decay(self) -> None:
        now_s = self._now()
        elapsed_s = max(0.0, now_s - self._updated_s)
        self._updated_s = now_s
        weight = math.exp(-elapsed_s / WINDOW_S)
        self._starts *= weight
        self._busy_s = weight * self._busy_s + (elapsed_s if self._is_busy else 0.0)
