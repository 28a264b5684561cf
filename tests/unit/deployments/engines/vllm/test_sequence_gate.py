"""Slots that large requests leave to others."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from deployments.engines.call import with_call_context
from deployments.engines.vllm.sequence_gate import SequenceGate

Work = Callable[[], Awaitable[None]]


class Core:
    """An engine core that notes what it is given."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.outputs: asyncio.Queue[Any] = asyncio.Queue()

    async def add_request_async(self, request: Any) -> None:
        """Start a sequence."""
        self.running.append(request.request_id)

    async def abort_requests_async(self, request_ids: list[str]) -> None:
        """End sequences."""
        self.running = [each for each in self.running if each not in request_ids]

    async def get_output_async(self) -> Any:
        """The next output."""
        return await self.outputs.get()


class Engine:
    """A gate of eight slots, and what requests do with it."""

    def __init__(self, slots: int = 8) -> None:
        self.core: Any = Core()
        self.gate = SequenceGate(self.core, slots)

    async def ask(self, name: str, sequences: int, *, pools: bool = False) -> None:
        """A request with so many sequences."""

        async def app(*_: object) -> None:
            for number in range(sequences):
                await self.core.add_request_async(
                    SimpleNamespace(
                        request_id=f"{name}{number}",
                        pooling_params=pools or None,
                        resumable=False,
                    )
                )

        await with_call_context(app)({"type": "http", "headers": []}, _nothing, _nothing)

    async def end(self, name: str) -> None:
        """A running sequence ends by itself."""
        self.core.running.remove(name)
        output = SimpleNamespace(request_id=name, finish_reason="length")
        self.core.outputs.put_nowait(SimpleNamespace(outputs=[output]))
        await self.core.get_output_async()

    def running(self, name: str) -> int:
        """Sequences of a request that run."""
        return sum(each.startswith(name) for each in self.core.running)


async def test_small_requests_find_a_slot_beside_the_largest() -> None:
    """Its sequences leave a slot free, in small engines and in large ones."""
    for slots, running in {8: 7, 16: 15, 64: 57, 256: 225}.items():
        engine = Engine(slots)
        await engine.ask("large", 1000)
        assert (engine.running("large"), engine.gate.waiting) == (running, 1000 - running)
        await engine.ask("small", 1)
        assert engine.running("small") == 1


async def test_further_sequences_start_as_others_end() -> None:
    """Each that ends, or is aborted, lets the next start, until all have run."""
    engine = Engine()
    await engine.ask("large", 20)
    order = []
    while engine.core.running:
        order.append(engine.core.running[-1])
        if len(order) % 2:
            await engine.end(order[-1])
        else:
            await engine.core.abort_requests_async([order[-1]])
    assert sorted(order) == sorted(f"large{number}" for number in range(20))


async def test_the_next_sequence_is_found_among_requests_not_sequences() -> None:
    """However many sequences of one request wait; and nothing is kept of those that have gone."""
    engine = Engine()
    await engine.ask("large", 1000)
    await engine.ask("other", 3)
    assert len(engine.gate._queues) == 2
    await engine.end("large0")
    await engine.end("large1")
    assert engine.running("other") == 2
    waiting = [f"{name}{number}" for name in ("large", "other") for number in range(1000)]
    await engine.core.abort_requests_async(waiting)
    gate = engine.gate
    assert not any((gate._waiting, gate._queues, gate._calls, gate._running, gate._counts))


async def test_aborted_sequences_that_wait_never_start() -> None:
    """A client that leaves takes those along that the engine does not have yet."""
    engine = Engine()
    await engine.ask("large", 20)
    await engine.core.abort_requests_async([f"large{number}" for number in range(20)])
    assert (engine.core.running, engine.gate.waiting) == ([], 0)


async def test_large_requests_share_the_slots() -> None:
    """A place that becomes free goes to the request with the fewest further sequences."""
    engine = Engine()
    await engine.ask("a", 50)
    await engine.ask("b", 50)
    for number in range(1, 4):
        await engine.end(f"a{number}")
    assert (engine.running("a"), engine.running("b")) == (4, 4)


async def test_embeddings_do_not_wait() -> None:
    """They hold no slot for longer than a step."""
    engine = Engine()
    await engine.ask("texts", 50, pools=True)
    assert engine.running("texts") == 50


async def test_one_slot_serves_any_request() -> None:
    """An engine that has no slot to spare still takes further sequences, one after the other."""
    engine = Engine(slots=1)
    await engine.ask("large", 3)
    for number in range(3):
        await engine.end(f"large{number}")
    assert (engine.core.running, engine.gate.waiting) == ([], 0)


async def _nothing(*_: object) -> Any:
    return None
