"""Outputs of the many prompts of one request, merged."""

import asyncio
import random
from collections.abc import AsyncGenerator
from types import AsyncGeneratorType

import pytest

from deployments.engines.vllm.merged_outputs import STARTED_AT_ONCE, merged

Item = tuple[int, int]


class Source:
    """Some items with pauses between them, and an error at the end."""

    def __init__(self, place: int, items: int, seed: int, fails: bool = False) -> None:
        self.place, self.items, self.fails = place, items, fails
        self.rng = random.Random(seed)  # noqa: S311 - a seed makes it repeatable

    async def iterate(self) -> AsyncGenerator[Item, None]:
        """Its items."""
        for number in range(self.items):
            for _ in range(self.rng.randrange(3)):
                await asyncio.sleep(0)
            yield self.place, number
        if self.fails:
            raise ValueError(f"iterator {self.place}")


def is_closed(generator: object) -> bool:
    """Whether an iterator has ended, or will not begin."""
    assert isinstance(generator, AsyncGeneratorType)
    return generator.ag_frame is None


def sources(seed: int, fails: bool = False) -> list[Source]:
    """Iterators of different lengths, one of which may fail."""
    rng = random.Random(seed)  # noqa: S311 - likewise
    count = rng.choice([1, 2, 5, 40])
    failing = rng.randrange(count) if fails else -1
    return [
        Source(place, rng.randrange(4), seed + place, fails=place == failing)
        for place in range(count)
    ]


@pytest.mark.parametrize("seed", range(40))
async def test_all_items_come(seed: int) -> None:
    """Each with its iterator's place, in the iterator's order."""
    found: dict[int, list[Item]] = {}
    async for place, item in merged(*(each.iterate() for each in sources(seed))):
        found.setdefault(place, []).append(item)
    expected = {each.place: each.items for each in sources(seed) if each.items}
    assert found == {
        place: [(place, number) for number in range(items)] for place, items in expected.items()
    }


@pytest.mark.parametrize("seed", range(20))
async def test_an_error_ends_all(seed: int) -> None:
    """It is raised as from vLLM's, and no iterator stays open."""
    made = [each.iterate() for each in sources(seed, fails=True)]
    with pytest.raises(ValueError, match="iterator"):
        async for _ in merged(*made):
            pass
    assert all(map(is_closed, made))


@pytest.mark.parametrize("count", [1, 30])
async def test_whoever_leaves_closes_all(count: int) -> None:
    """As when a client disconnects."""
    made = [Source(place, 5, place).iterate() for place in range(count)]
    merging = merged(*made)
    await anext(merging)
    await merging.aclose()
    assert all(map(is_closed, made))


async def test_others_have_turns_while_many_are_started() -> None:
    """A task that runs beside it gets a turn for every few iterators."""
    turns = started = 0
    longest = 0

    async def source() -> AsyncGenerator[int, None]:
        nonlocal started
        started += 1
        yield 1

    async def other() -> None:
        nonlocal turns, longest, started
        while True:
            turns += 1
            longest, started = max(longest, started), 0
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    items = [item async for item in merged(*(source() for _ in range(500)))]
    beside.cancel()
    assert len(items) == 500
    assert longest <= STARTED_AT_ONCE


async def test_an_item_costs_the_same_however_many_iterators_there_are() -> None:
    """The steps of the event loop are counted; vLLM looks at all iterators for each item."""

    async def callbacks(count: int) -> int:
        made = 0
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon

        def counted(*args: object, **named: object) -> object:
            nonlocal made
            made += 1
            return call_soon(*args, **named)  # type: ignore[arg-type]

        loop.call_soon = counted  # type: ignore[method-assign, assignment]
        try:
            generators = (Source(place, 1, 0).iterate() for place in range(count))
            assert len([item async for item in merged(*generators)]) == count
        finally:
            del loop.call_soon
        return made

    small, large = await callbacks(100), await callbacks(1000)
    assert large < 11 * small
