"""The periodic task: called again and again, whatever a call raises, until it is closed."""

import asyncio
import logging

import pytest

from gateway.periodic import Periodic
from tests.unit.conftest import PATIENCE_S


async def test_a_call_that_fails_is_logged_and_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """The log names what failed, and the next call is made nevertheless."""
    calls = 0
    again = asyncio.Event()

    async def call() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("no")
        again.set()

    periodic = Periodic("counting", 0.001, call)
    with caplog.at_level(logging.ERROR):
        periodic.start()
        await asyncio.wait_for(again.wait(), PATIENCE_S)
    await periodic.close()

    assert "counting failed" in caplog.text


async def test_closing_cancels_the_call_under_way() -> None:
    """No call is made afterwards, and a hanging call does not delay it."""
    calls = 0

    async def hang() -> None:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()

    periodic = Periodic("hanging", 0.001, hang)
    periodic.start()
    await asyncio.sleep(0.01)
    await asyncio.wait_for(periodic.close(), PATIENCE_S)
    await asyncio.sleep(0.01)

    assert calls == 1


async def test_closing_without_a_start_does_nothing() -> None:
    """A router may fail before its tasks have begun."""

    async def call() -> None:
        raise AssertionError("it was called")

    await Periodic("idle", 0.001, call).close()
