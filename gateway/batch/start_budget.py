"""Which line of a batch may start now, by what its window leaves."""

import math

from gateway.batch.dispatch_window import DispatchWindow


class StartBudget:
    """What is left of a window; `now_s`: seconds, by a clock that never goes back."""

    def __init__(self) -> None:
        self._window = DispatchWindow(0)
        self._tokens = 0.0
        self._rested_s = -math.inf
        """From when on a larger line may start."""

    def renew(self, window: DispatchWindow) -> None:
        """Go by a new window."""
        self._window = window
        self._tokens = window.tokens

    def may_start(self, tokens: float, now_s: float) -> bool:
        """Whether a line with so many prompt tokens to compute may start."""
        if tokens > self._window.largest:
            return now_s >= self._rested_s and self._tokens >= self._window.largest
        if math.isinf(self._window.largest):
            return self._tokens > 0
        return tokens <= self._tokens

    def record_start(self, tokens: float, now_s: float) -> None:
        """Record that a line has started."""
        self._tokens -= tokens
        if tokens > self._window.largest:
            self._rested_s = now_s + tokens * self._window.rest_s
