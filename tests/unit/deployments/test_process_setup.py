"""The gateway's log records in Serve's log."""

import logging
from collections.abc import Iterator

import pytest

from deployments.process_setup import (
    OURS,
    SERVE,
    TRACEBACK_PERIOD_S,
    RareTracebacks,
    log_with_serve,
)


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


def test_a_traceback_is_written_once_a_minute() -> None:
    """What fails in each step of an engine does not bury the rest; each place counts by itself."""
    now_s = [1000.0]
    rare = RareTracebacks(lambda: now_s[0])

    def record(line: int, *, has_traceback: bool = True) -> logging.LogRecord:
        info = (ValueError, ValueError(), None) if has_traceback else None
        return logging.LogRecord("gateway", logging.ERROR, "x.py", line, "broken", (), info)

    passed = [rare.filter(record(1)) for _ in range(3)]
    others = [rare.filter(record(2)), rare.filter(record(1, has_traceback=False))]
    now_s[0] += TRACEBACK_PERIOD_S
    later = record(1)

    assert passed == [True, False, False]
    assert others == [True, True]
    assert rare.filter(later)
    assert later.getMessage() == "broken (2 more times since the last such line)"
