"""How fast a lane drains, measured while somebody waits in it."""

import math
from collections.abc import Callable

WINDOW_S = 30.0
"""What is this old counts for a third of what is new."""
LEAST_STARTS = 3.0
"""Below as many in the window nothing is foretold."""


class DrainRate:
    """Starts over busy time, both forgotten exponentially. `now` is in seconds; O(1)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._told_s = now()
        self._starts = 0.0
        self._busy_s = 0.0
        self._is_busy = False

    def begin(self) -> None:
        """Somebody waits from now on."""
        self._advance()
        self._is_busy = True

    def rest(self) -> None:
        """Nobody waits any more."""
        self._advance()
        self._is_busy = False

    def start(self) -> None:
        """One of those that waited has been started."""
        self._advance()
        self._starts += 1

    @property
    def per_s(self) -> float | None:
        """Starts in a second; None while there are too few to tell."""
        self._advance()
        if self._starts < LEAST_STARTS or self._busy_s <= 0:
            return None
        return self._starts / self._busy_s

    def _advance(self) -> None:
        now_s = self._now()
        elapsed_s = max(0.0, now_s - self._told_s)
        self._told_s = now_s
        weight = math.exp(-elapsed_s / WINDOW_S)
        self._starts *= weight
        self._busy_s = weight * self._busy_s + (elapsed_s if self._is_busy else 0.0)
