"""Faults of the simulated engine: which requests get them, and what clients see."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError

from deployments.engines.server import EngineServer
from deployments.engines.sim.engine import SimulatedEngine
from gateway.config.sim import Simulation
from tests.unit.deployments.engines.sim.simulated import (
    CHAT,
    COMPLETIONS,
    PLAIN_STEPS,
    Exchange,
    FakeTime,
    chat,
    completion,
    dispatched,
    engine_with,
    replica_with,
)

REQUESTS = 400


def numbered(number: int) -> list[tuple[bytes, bytes]]:
    """Headers of the request with that number."""
    return [(b"x-request-id", b"%d" % number)]


async def statuses(engine: SimulatedEngine) -> list[int]:
    """Statuses of the first requests; 0 if the connection breaks before any byte."""
    exchanges = [
        Exchange(engine, CHAT, chat(max_tokens=1), headers=numbered(number))
        for number in range(REQUESTS)
    ]
    await asyncio.gather(*(exchange.task for exchange in exchanges))
    return [exchange.status for exchange in exchanges]


async def test_a_share_of_requests_fails() -> None:
    """The configured share: the same requests on one replica, others on another."""
    first = await statuses(engine_with(error_rate=0.3))
    assert 90 < first.count(500) < 150
    assert first.count(200) + first.count(500) == REQUESTS
    assert await statuses(engine_with(error_rate=0.3)) == first
    other = await statuses(replica_with("two", error_rate=0.3))
    both = sum(pair == (500, 500) for pair in zip(first, other, strict=True))
    assert 15 < both < 60
    nameless = [await statuses(replica_with("", error_rate=0.3)) for _ in range(2)]
    assert nameless[0] != nameless[1]


async def test_a_failure_has_openais_shape() -> None:
    """The error names its cause, and says that it is simulated."""
    exchange = await Exchange(engine_with(error_rate=1), CHAT, chat()).finish()
    assert (exchange.status, exchange.error_code) == (500, "simulated_failure")
    assert exchange.headers[b"x-simulated"] == b"1"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("is_paced", [False, True])
async def test_resets_happen_at_every_position(stream: bool, is_paced: bool) -> None:
    """Before the first byte or in the middle, never at the end; fixed for each request."""
    time = FakeTime() if is_paced else None
    body = completion("abcd", stream=stream, max_tokens=20)
    whole = (await Exchange(engine_with(), COMPLETIONS, body).finish()).body
    lengths: list[int] = []
    silent = 0
    for number in range(100):
        engine = engine_with(time, reset_rate=1, **PLAIN_STEPS)
        exchange = Exchange(engine, COMPLETIONS, body, time, headers=numbered(number))
        await exchange.finish()
        assert exchange.is_broken_off
        lengths.append(len(exchange.body))
        silent += exchange.status == 0
        assert len((await again(number, body)).body) == lengths[-1]
        assert engine.tracker.load.running == 0
    assert 10 < silent < 45
    assert max(lengths) < len(whole)
    assert len(set(lengths)) > 15 or not stream


async def again(number: int, body: dict[str, Any]) -> Exchange:
    """The same request to an engine without a clock."""
    engine = engine_with(reset_rate=1)
    return await Exchange(engine, COMPLETIONS, body, headers=numbered(number)).finish()


@pytest.mark.parametrize("is_paced", [False, True])
async def test_a_hanging_request_is_work_without_progress(is_paced: bool) -> None:
    """It gets no byte, counts as stalled work, and ends when its client leaves."""
    time = FakeTime()
    engine = engine_with(time if is_paced else None, hang_rate=1)
    exchange = Exchange(engine, CHAT, chat(stream=True), time, headers=[dispatched(7)])
    await time.pass_s(30)
    assert (exchange.status, exchange.task.done()) == (0, False)
    snapshot = engine.tracker.snapshot()
    assert snapshot.accepted == [7]
    assert snapshot.load is not None
    assert snapshot.load.running == 1
    if is_paced:
        assert snapshot.stalled_s == 30
    exchange.leave()
    await exchange.finish()
    update = engine.tracker.pop_update()
    assert update is not None
    assert [one.is_aborted for one in update.finished] == [True]
    assert update.stalled_s == 0


async def test_faults_do_not_overlap() -> None:
    """Each kind gets its share, and the remaining requests are answered."""
    engine = engine_with(error_rate=0.25, reset_rate=0.25, hang_rate=0.25)
    exchanges = [
        Exchange(engine, CHAT, chat(max_tokens=1), headers=numbered(number))
        for number in range(REQUESTS)
    ]
    for _ in range(20):
        await asyncio.sleep(0)
    hanging = [exchange for exchange in exchanges if not exchange.task.done()]
    broken = [exchange for exchange in exchanges if exchange.is_broken_off]
    failed = [exchange for exchange in exchanges if exchange.status == 500]
    for share in (hanging, broken, failed):
        assert 70 < len(share) < 130
    assert not (set(broken) & set(failed))
    for exchange in hanging:
        exchange.leave()
        await exchange.finish()


def test_rates_are_shares_of_a_whole() -> None:
    """The rates may add up to one, and no more."""
    assert Simulation(error_rate=0.7, reset_rate=0.2, hang_rate=0.1).hang_rate == 0.1
    with pytest.raises(
        ValidationError, match="`error_rate`, `reset_rate` and `hang_rate` together exceed 1"
    ):
        Simulation(error_rate=0.7, reset_rate=0.2, hang_rate=0.2)


async def test_a_text_fails_on_every_replica() -> None:
    """Requests that have the entry's text get a 500 or halt everything; others are answered."""
    for replica in ("one", "two"):
        engine = replica_with(replica, error_text="poison", halt_text="stop", halt_s=0.3)
        poisoned, plain = [
            await Exchange(engine, CHAT, chat(text, max_tokens=1)).finish()
            for text in ("the poison", "Hello")
        ]
        before_s = time.monotonic()
        halting = await Exchange(engine, CHAT, chat("stop", max_tokens=1)).finish()
        assert (poisoned.status, plain.status, halting.status) == (500, 200, 200)
        assert time.monotonic() - before_s >= 0.3


@pytest.fixture
async def broken_server() -> AsyncIterator[EngineServer]:
    """A real server whose every response is reset."""
    server = EngineServer(engine_with(reset_rate=1), "127.0.0.1")
    await server.start()
    yield server
    await server.stop()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_sees_the_connection_reset(
    broken_server: EngineServer, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A response without its end is an error for the client, and no error in the log."""
    url = f"http://{broken_server.host}:{broken_server.port}{CHAT}"
    headers = {"authorization": f"Bearer {broken_server.key}"}
    kinds: set[type[Exception]] = set()
    async with aiohttp.ClientSession() as session:
        for number in range(24):
            sent = {**headers, "x-request-id": str(number)}
            with pytest.raises(aiohttp.ClientError) as raised:
                async with session.post(url, json=chat(stream=stream), headers=sent) as response:
                    await response.read()
            kinds.add(type(raised.value))
    assert len(kinds) > 1, "some break before the first byte, some after"
    assert await broken_server.drain(timeout_s=60) == 0
    assert caplog.text == ""
