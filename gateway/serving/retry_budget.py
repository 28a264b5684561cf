"""How often a model's requests may be tried again: not so often that an outage grows by it."""

SHARE = 0.2
"""Retries for each request."""
RESERVE = 10.0
"""Retries that a model has to begin with, however few its requests."""
MOST = 100.0
"""Retries that can be saved up: the share of the last 500 requests."""


class RetryBudget:
    """One model's: every request earns a share of a retry. O(1)."""

    def __init__(self) -> None:
        self._retries = RESERVE

    @property
    def is_left(self) -> bool:
        """Whether a retry can be had."""
        return self._retries >= 1

    def earn(self) -> None:
        """A request has come."""
        self._retries = min(MOST, self._retries + SHARE)

    def spend(self) -> bool:
        """Take one retry; False if there is none left."""
        if not self.is_left:
            return False
        self._retries -= 1
        return True
