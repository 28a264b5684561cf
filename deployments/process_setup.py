"""Our log lines in Serve's log files, where operators look for them."""

import gc
import logging

SERVE = logging.getLogger("ray.serve")
OURS = ("gateway", "deployments")


class _ToServe(logging.Handler):
    """Hands every record to Serve's logger, whose handlers come and go with its configuration."""

    def emit(self, record: logging.LogRecord) -> None:
        if SERVE.isEnabledFor(record.levelno):
            SERVE.handle(record)


def log_with_serve() -> None:
    """Have this process's records go where Serve's own go, from here on."""
    for name in OURS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        if not any(isinstance(handler, _ToServe) for handler in logger.handlers):
            logger.addHandler(_ToServe())


YOUNG = 50_000
"""Objects made before the young ones are looked through: requests leave hardly any cycles."""
MIDDLE, OLD = 20, 100


def collect_rarely() -> None:
    """Leave what has been imported and made so far alone, and look through the rest less often.

    With Python's own thresholds a router spends about a twentieth of its time on looking through
    what does not change, in pauses that show in the time to first token.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
