"""Set-up of processes that serve requests: where they log, and when Python collects garbage."""

import gc
import logging

SERVE = logging.getLogger("ray.serve")
OURS = ("gateway", "deployments")
YOUNG = 50_000
"""New objects before Python looks for cycles among them: requests leave hardly any."""
MIDDLE, OLD = 20, 100


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
            logger.addHandler(_ServeHandler())


def collect_garbage_rarely() -> None:
    """Exempt all present objects from garbage collection, and collect the rest less often.

    With Python's own thresholds a router spends about a twentieth of its time looking through
    objects that never change, in pauses that show in the time to first token.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
