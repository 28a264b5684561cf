"""The drain of a router that stops."""

import asyncio

import pytest

from gateway.errors.upstream import ShuttingDown
from gateway.serving.drain import Drain


async def test_a_drain_waits_for_requests_and_rejects_new_ones() -> None:
    """What runs is finished in peace."""
    drain, finish = Drain(), asyncio.Event()

    async def request() -> str:
        with drain.request():
            await finish.wait()
        return "answered"

    running = asyncio.create_task(request())
    await asyncio.sleep(0)
    draining = asyncio.create_task(drain.drain(60))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        await request()
    assert drain.running == 1
    finish.set()

    assert await running == "answered"
    assert await draining == 0
    assert drain.running == 0


async def test_requests_that_outlast_a_drain_end_with_an_error() -> None:
    """Its bound holds for all of them, and a second drain with a shorter bound shortens it."""
    drain, errors = Drain(), []

    async def request() -> None:
        try:
            with drain.request():
                await asyncio.Event().wait()
        except ShuttingDown as error:
            errors.append(error.code)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(request())
        await asyncio.sleep(0)
        first = group.create_task(drain.drain(60))
        await asyncio.sleep(0)
        assert await drain.drain(0) == 3

    assert errors == ["shutting_down"] * 3
    assert first.result() == 0


async def test_a_client_that_leaves_during_a_drain_is_not_told() -> None:
    """A cancellation by another hand stays one."""
    drain = Drain()

    async def request() -> None:
        with drain.request():
            await asyncio.Event().wait()

    running = asyncio.create_task(request())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert await drain.drain(60) == 0
