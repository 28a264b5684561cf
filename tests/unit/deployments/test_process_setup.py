"""The gateway's log records in Serve's log."""

import logging
from collections.abc import Iterator

import pytest

from deployments.process_setup import OURS, SERVE, log_with_serve


@pytest.fixture
def serve_s_log() -> Iterator[list[str]]:
    """Records that reach Serve's logger, which is restored afterwards."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    before = {name: logging.getLogger(name).handlers[:] for name in OURS}
    handler, level = Handler(), SERVE.level
    SERVE.addHandler(handler)
    SERVE.setLevel(logging.INFO)
    yield lines
    SERVE.removeHandler(handler)
    SERVE.setLevel(level)
    for name, handlers in before.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, True
        logger.setLevel(logging.NOTSET)


def test_our_lines_are_in_serve_s_log_once(serve_s_log: list[str]) -> None:
    """From any module, however often logging was set up."""
    log_with_serve()
    log_with_serve()
    logging.getLogger("gateway.faults").warning("request %s: retried", "r1")
    logging.getLogger("deployments.engines.control_routes").info("cut off")
    logging.getLogger("gateway.relay").debug("nobody reads this")
    assert serve_s_log == ["request r1: retried", "cut off"]


def test_serve_s_log_level_applies(serve_s_log: list[str]) -> None:
    """An operator who wants only warnings from Serve gets only warnings from the gateway."""
    log_with_serve()
    SERVE.setLevel(logging.WARNING)
    logging.getLogger("gateway.relay").info("quiet")
    assert serve_s_log == []
