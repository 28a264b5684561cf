"""Set-up of processes that serve requests: where they log, and when Python collects garbage."""

import contextlib
import gc
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

from gateway.errors.startup import ConfigError

SERVE = logging.getLogger("ray.serve")
OURS = ("gateway", "deployments")
YOUNG = 50_000
"""New objects before Python looks for cycles among them: requests leave hardly any."""
MIDDLE, OLD = 20, 100
TRACEBACK_PERIOD_S = 60.0


class RareTracebacks(logging.Filter):
    """Lets one traceback from each place through in a minute; the next one says how many came.

    What fails in each step of an engine would bury everything else. `now` is in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._until_s: dict[tuple[str, int], float] = {}
        self._held: Counter[tuple[str, int]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        if not record.exc_info:
            return True
        place = record.pathname, record.lineno
        if self._now() < self._until_s.get(place, -math.inf):
            self._held[place] += 1
            return False
        self._until_s[place] = self._now() + TRACEBACK_PERIOD_S
        if held := self._held.pop(place, 0):
            record.msg = f"{record.msg} ({held} more times since the last such line)"
        return True


class _ServeHandler(logging.Handler):
    """Hands every record to Serve's logger, whose handlers come and go with its configuration."""

    def emit(self, record: logging.LogRecord) -> None:
        if SERVE.isEnabledFor(record.levelno):
            SERVE.handle(record)


def log_with_serve() -> None:
    """Send this process's log records where Serve's own go, from here on."""
    for name in OURS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        if not any(isinstance(handler, _ServeHandler) for handler in logger.handlers):
            handler = _ServeHandler()
            handler.addFilter(RareTracebacks())
            logger.addHandler(handler)


def collect_garbage_rarely() -> None:
    """Exempt all present objects from garbage collection, and collect the rest less often.

    With Python's own thresholds a router spends about a twentieth of its time looking through
    objects that never change, in pauses that show in the time to first token.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)


@contextlib.contextmanager
def short_config_errors() -> Iterator[None]:
    """Have a `ConfigError` end this process with its message only.

    Serve shows the whole traceback as its message, and stops the process.
    """
    try:
        yield
    except ConfigError:
        sys.tracebacklimit = 0
        raise


def time_since_start() -> Callable[[], float]:
    """Seconds since the epoch, without any adjustment of the clock from now on."""
    started_s = time.time() - time.monotonic()
    return lambda: started_s + time.monotonic()
