"""Warnings that a client can cause at will, logged at most every few seconds with their number."""

import logging
import time
from collections.abc import Callable

PERIOD_S = 10.0


class RareWarning:
    """Logs the first of many like warnings, and later ones once per `PERIOD_S`."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._count = 0
        self._logged_s = float("-inf")

    def log(self, message: str, *values: object) -> None:
        """Log `message % values`, unless another one has been logged just before."""
        self._count += 1
        now_s = self._clock()
        if now_s - self._logged_s >= PERIOD_S:
            text = f"{message} (%d times since the last such line)"
            self._logger.warning(text, *values, self._count)
            self._count, self._logged_s = 0, now_s
