"""Throttle of failed authentication, by the client's address.

Method: a token bucket for each address, filled once a minute; a failure takes a token, and without
one it is answered with 429. Only failures are counted and refused: a valid key always passes.
Cost: O(1) a failure. The addresses that failed least recently are forgotten.
"""

from collections import OrderedDict
from collections.abc import Callable

MAX_ADDRESSES = 4096
PERIOD_S = 60.0


class FailureThrottle:
    """Failures of each address; `clock`: seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        """By address: the failures that it has left, and when that was so."""

    def record_failure(self, address: bytes, per_minute: int) -> float:
        """Count a failure; returns after how many seconds another is allowed, 0 if this one is."""
        now_s = self._clock()
        left, at_s = self._buckets.pop(address, (float(per_minute), now_s))
        left = min(per_minute, left + (now_s - at_s) * per_minute / PERIOD_S)
        is_allowed = left >= 1
        left -= is_allowed
        self._buckets[address] = left, now_s
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1 - left) * PERIOD_S / per_minute
