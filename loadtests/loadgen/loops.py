"""Arrival processes: open loops send at given times, closed loops after each answer."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from loadtests.loadgen.outcome import RequestOutcome

UNANSWERED_PAUSE_S = 1.0
"""Pause of a closed loop's sender whose request was not answered."""

T = TypeVar("T")


def poisson_arrivals(rate: float, seconds: float, rng: random.Random) -> list[float]:
    """Arrival times of independent requests, `rate` a second on average."""
    found, at_s = [], rng.expovariate(rate)
    while at_s < seconds:
        found.append(at_s)
        at_s += rng.expovariate(rate)
    return found


async def open_loop(
    times_s: Sequence[float], send: Callable[[int, float], Coroutine[Any, Any, T]], start_s: float
) -> list[T]:
    """Send each request at its time, whether or not answers come, and wait for all answers.

    `send` gets the request's number and the time when it was due.
    """
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number, at_s in enumerate(times_s):
            await asyncio.sleep(start_s + at_s - time.monotonic())
            tasks.append(group.create_task(send(number, start_s + at_s)))
    return [task.result() for task in tasks]


async def closed_loop(
    senders: int, send: Callable[[], Awaitable[RequestOutcome]], is_over: Callable[[], bool]
) -> list[RequestOutcome]:
    """Keep `senders` requests in flight until `is_over`, and wait for the last answers."""
    found: list[RequestOutcome] = []

    async def send_on() -> None:
        while not is_over():
            found.append(outcome := await send())
            if not outcome.is_answered:
                await asyncio.sleep(UNANSWERED_PAUSE_S)

    await asyncio.gather(*(send_on() for _ in range(senders)))
    return found
