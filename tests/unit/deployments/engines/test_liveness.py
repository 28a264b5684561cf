"""Liveness of engines whose process answers."""

import asyncio
from dataclasses import dataclass, field

import pytest

from deployments.engines.liveness import UNMEASURED_FACTOR, EngineHangs, EngineLiveness
from gateway.asgi import App, Receive, Scope, Send
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.serving.stall_limit import LONG_STEPS
from gateway.telemetry.facts import EngineFacts

LIMIT_S = 30.0
FACTS = EngineFacts(
    engine="fake",
    routes=(),
    kv_tokens=1 << 16,
    block_size=16,
    max_sequences=8,
    max_model_len=1 << 16,
    step_tokens=1000,
)


@dataclass
class FakeEngine:
    """An engine that answers pings while it works."""

    now_s: float = 0.0
    facts: EngineFacts = FACTS
    works: asyncio.Event = field(default_factory=asyncio.Event)
    pings: int = 0

    def __post_init__(self) -> None:
        self.tracker = EngineTracker(self.facts, lambda: self.now_s)

    async def ping(self) -> None:
        """Answer while it works."""
        self.pings += 1
        await self.works.wait()

    async def check(self) -> None:
        """It has not died."""

    async def stop(self) -> None:
        """It holds nothing."""

    @property
    def app(self) -> App:
        """An application that nobody calls."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise NotImplementedError

        return app


async def pinged(engine: FakeEngine, times: int) -> None:
    """Wait until an engine has been pinged so often."""
    async with asyncio.timeout(5):
        while engine.pings < times:  # noqa: ASYNC110 - pings have no event
            await asyncio.sleep(0.001)


async def test_an_idle_engine_that_answers_no_ping_hangs() -> None:
    """It has no request that could show it; and none is pinged twice at a time."""
    engine = FakeEngine()
    liveness = EngineLiveness(engine, LIMIT_S, ping_period_s=0.001)
    await pinged(engine, 1)
    engine.now_s = LIMIT_S
    liveness.check()
    engine.now_s += 1
    with pytest.raises(EngineHangs, match="no progress for 31 s"):
        liveness.check()

    assert engine.pings == 1
    await liveness.stop()


async def test_an_engine_that_answers_pings_works() -> None:
    """Even if its requests get no token: their grammar may be compiled elsewhere."""
    engine = FakeEngine()
    engine.works.set()
    engine.tracker.record_arrival(None, 10)
    liveness = EngineLiveness(engine, LIMIT_S, ping_period_s=0.001)
    for _ in range(20):
        engine.now_s += LIMIT_S / 2
        await pinged(engine, engine.pings + 2)
        liveness.check()
    await liveness.stop()


async def test_a_first_prompt_may_take_long() -> None:
    """The engine's speed is not known yet."""
    engine = FakeEngine()
    liveness = EngineLiveness(engine, LIMIT_S)
    engine.tracker.record_arrival(None, 10_000)
    engine.now_s = UNMEASURED_FACTOR * LIMIT_S
    liveness.check()
    engine.now_s += 1
    with pytest.raises(EngineHangs):
        liveness.check()
    await liveness.stop()


async def test_a_slow_engines_steps_may_take_longer() -> None:
    """Four of the longest, at the speed that was measured."""
    engine = FakeEngine()
    liveness = EngineLiveness(engine, LIMIT_S)
    for _ in range(50):
        tracked = engine.tracker.record_arrival(None, 1000)
        engine.now_s += 20.0
        engine.tracker.record_first_token(tracked, 0)
        engine.tracker.record_finished(tracked, 1)
        engine.now_s += 1.0
    engine.tracker.record_arrival(None, 1000)

    assert liveness.limit_s > LIMIT_S
    assert liveness.limit_s == pytest.approx(LONG_STEPS * 20.0, rel=0.3)
    await liveness.stop()
