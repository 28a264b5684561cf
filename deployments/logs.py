"""Our log lines in Serve's log files, where operators look for them."""

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
