"""Threads of a renderer, of which a request has one at a time."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from deployments.engines.call import with_call_context
from deployments.engines.vllm.fair_rendering import FairRendering

Jobs = dict[str, list[Callable[[], str]]]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """An executor of two threads that is used fairly."""
    with ThreadPoolExecutor(2) as executor:
        FairRendering(executor)
        yield executor


async def submitted(pool: ThreadPoolExecutor, jobs: Jobs) -> dict[str, list[Future[str]]]:
    """The jobs of several calls, in this order."""
    found: dict[str, list[Future[str]]] = {}

    async def submit_all(name: str) -> None:
        async def app(*_: object) -> None:
            found[name] = [pool.submit(job) for job in jobs[name]]

        await with_call_context(app)({"type": "http", "headers": []}, _nothing, _nothing)

    for name in jobs:
        await submit_all(name)
    return found


async def test_a_small_request_does_not_wait_for_the_prompts_of_a_large_one(
    pool: ThreadPoolExecutor,
) -> None:
    """It is done while the first of a thousand still runs, and all are done in their order."""
    may_go, order = threading.Event(), list[int]()

    def job(number: int) -> Callable[[], str]:
        def work() -> str:
            assert may_go.wait(30)
            order.append(number)
            return f"large {number}"

        return work

    jobs: Jobs = {"large": [job(number) for number in range(1000)], "small": [lambda: "small"]}
    found = await submitted(pool, jobs)
    assert await asyncio.wrap_future(found["small"][0]) == "small"
    assert not any(each.done() for each in found["large"])
    may_go.set()
    results = await asyncio.gather(*map(asyncio.wrap_future, found["large"]))
    assert results == [f"large {number}" for number in range(1000)]
    assert order == list(range(1000))


async def test_errors_and_cancelled_work_hold_nothing_up(pool: ThreadPoolExecutor) -> None:
    """An error goes to whoever waits for that work, and what nobody waits for is not done."""
    may_go, done = threading.Event(), list[str]()

    def wait() -> str:
        assert may_go.wait(30)
        raise ValueError("wrong")

    def work() -> str:
        done.append("work")
        return "right"

    found = await submitted(pool, {"one": [wait, work, work]})
    failed, cancelled, right = found["one"]
    assert cancelled.cancel()
    may_go.set()
    assert await asyncio.wrap_future(right) == "right"
    assert isinstance(failed.exception(), ValueError)
    assert done == ["work"]


async def test_the_end_of_the_threads_is_told_to_all_that_wait(pool: ThreadPoolExecutor) -> None:
    """Nobody waits forever for work that will not be done."""
    may_go = threading.Event()
    found = await submitted(pool, {"one": [lambda: str(may_go.wait(30)), str, str, str]})
    first, cancelled, *others = found["one"]
    assert cancelled.cancel()
    pool.shutdown(wait=False)
    may_go.set()
    assert await asyncio.wrap_future(first) == "True"
    for each in others:
        with pytest.raises(RuntimeError):
            await asyncio.wrap_future(each)
    with pytest.raises(RuntimeError):
        await submitted(pool, {"two": [str]})


async def test_work_outside_of_calls_is_done_as_it_comes(pool: ThreadPoolExecutor) -> None:
    """Both threads do it."""
    both = threading.Barrier(2)
    futures = [pool.submit(both.wait, 30) for _ in range(2)]
    assert sorted([await asyncio.wrap_future(each) for each in futures]) == [0, 1]


async def _nothing(*_: object) -> Any:
    return None
