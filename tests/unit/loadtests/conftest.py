"""Fixtures of the load tests' own tests."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from loadtests.comparison import path, suspend
from loadtests.comparison.path_report import PathLoad


@pytest.fixture(autouse=True)
def short_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed processes of tests have no timers to wait for."""
    monkeypatch.setattr(suspend, "SETTLE_S", 0.05)
    monkeypatch.setattr(path, "WARM_UP", PathLoad(seconds=0.2))


@pytest.fixture
def busy() -> Iterator[psutil.Process]:
    """A process that runs until it is ended."""
    process = psutil.Popen([sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        process.wait()
