"""Limit on how long an engine may make no progress before it counts as stuck."""

MIN_STALL_S = 10.0
LONG_STEPS = 4.0
"""Longest steps, one after the other, that may pass without any that ends."""
MAX_FACTOR = 64.0


class StallLimit:
    """Stall limit of one model's engines, which doubles each time it is exceeded.

    Work that was given up once too early would be given up again on every other engine, and the
    model's speed would never be learned.
    """

    def __init__(self) -> None:
        self._factor = 1.0

    @property
    def is_extended(self) -> bool:
        """Whether an engine has been given up, without the speed having been measured since."""
        return self._factor > 1

    def is_exceeded(self, stalled_s: float, step_s: float) -> bool:
        """Whether an engine that has made no progress for so long is stuck.

        `step_s`: learned time of its longest step.
        """
        return stalled_s > self._factor * max(MIN_STALL_S, LONG_STEPS * step_s)

    def extend(self) -> None:
        """Allow twice as long from now on: an engine has been given up."""
        self._factor = min(2 * self._factor, MAX_FACTOR)

    def reset(self) -> None:
        """Go back to the usual limit: the speed of the model's engines is known now."""
        self._factor = 1.0
