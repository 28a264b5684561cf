"""Fixtures of the load tests' own tests."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest


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
