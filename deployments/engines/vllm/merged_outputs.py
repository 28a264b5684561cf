"""Outputs of the many prompts of one request, merged so that other requests are not held up.

vLLM 0.32 starts all prompts of a request in one turn of its event loop, and then looks at all that
are unfinished for each output: 2,048 prompts kept everybody else waiting for 1.5 s at first, and
cost the square of their number in the end.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from importlib import import_module
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")

MERGING = (
    "vllm.entrypoints.generate.label_reads",
    "vllm.entrypoints.openai.chat_completion.batch_serving",
    "vllm.entrypoints.openai.completion.serving",
    "vllm.entrypoints.pooling.base.serving",
)
"""vLLM's modules that merge the outputs of a request's prompts."""
STARTED_AT_ONCE = 4
"""Prompts that are started before others have a turn."""


def merge_fairly() -> None:
    """Make vLLM merge outputs by `merged` in this process."""
    for name in MERGING:
        module: Any = import_module(name)
        module.merge_async_iterators = merged


async def merged(*iterators: AsyncGenerator[_T, None]) -> AsyncGenerator[tuple[int, _T], None]:
    """Items of several iterators as they come, each with the place of its iterator.

    As vLLM's `merge_async_iterators`: one item of each is asked for ahead; all are closed at the
    end, or when one of them fails. An item costs the same however many iterators there are.
    """
    if len(iterators) == 1:
        async with aclosing(iterators[0]) as only:
            async for item in only:
                yield 0, item
        return
    merging = _Merging(iterators)
    try:
        for place in range(len(iterators)):
            merging.ask(place)
            if place % STARTED_AT_ONCE == 0:
                await asyncio.sleep(0)
        while merging.asked:
            place, task = await merging.next_done()
            try:
                item = task.result()
            except StopAsyncIteration:
                continue
            merging.ask(place)
            yield place, item
    finally:
        await merging.close()


class _Merging(Generic[_T]):
    """Iterators that are asked for their next items."""

    def __init__(self, iterators: Sequence[AsyncGenerator[_T, None]]) -> None:
        self._iterators = iterators
        self.asked: dict[int, asyncio.Task[_T]] = {}
        """By place, the task that gets the next item."""
        self._done: deque[int] = deque()
        self._is_any_done = asyncio.Event()

    def ask(self, place: int) -> None:
        """Get an iterator's next item."""
        task = asyncio.ensure_future(anext(self._iterators[place]))
        self.asked[place] = task
        task.add_done_callback(lambda _: self._record_done(place))

    def _record_done(self, place: int) -> None:
        self._done.append(place)
        self._is_any_done.set()

    async def next_done(self) -> tuple[int, asyncio.Task[_T]]:
        """The iterator that has an item, has ended or failed first, and its task."""
        while not self._done:
            self._is_any_done.clear()
            await self._is_any_done.wait()
        place = self._done.popleft()
        return place, self.asked.pop(place)

    async def close(self) -> None:
        """Stop asking, and close all."""
        for task in self.asked.values():
            task.cancel()
        await asyncio.gather(*self.asked.values(), return_exceptions=True)
        for iterator in self._iterators:
            with suppress(Exception, asyncio.CancelledError):
                await iterator.aclose()
