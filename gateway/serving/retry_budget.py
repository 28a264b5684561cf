"""Retry budget of a model: a share of its requests, so that retries do not multiply an outage."""

SHARE = 0.2
"""Retries that each request earns."""
RESERVE = 10.0
"""Retries that a model has from the start, however few its requests."""
MAX_SAVED = 100.0
"""Retries that can be saved up: the share of 500 requests."""


class RetryBudget:
    """Retries of one model that are left; every request earns a share of one. O(1)."""

    def __init__(self) -> None:
        self._retries = RESERVE

    @property
    def is_left(self) -> bool:
        """Whether there is a retry left."""
        return self._retries >= 1

    def earn(self) -> None:
        """Earn the share of a request."""
        self._retries = min(MAX_SAVED, self._retries + SHARE)

    def spend(self) -> bool:
        """Spend one retry; False if none is left."""
        if not self.is_left:
            return False
        self._retries -= 1
        return True
