"""Accounts reads an engine's usage records over HTTP, and a stopping engine waits for it."""

import asyncio

import msgspec
import pytest

from deployments.engines.server import EngineServer
from deployments.engines.sim.engine import SimulatedEngine
from gateway.telemetry.dispatch import Dispatch, Origin
from gateway.telemetry.usage import USAGE_PATH, UsagePage
from gateway.upstream.client import UpstreamClient
from gateway.upstream.engine_call import read_all
from gateway.upstream.headers import engine_headers
from tests.unit.deployments.engines.sim.simulated import engine_with


class UsageReader:
    """A server of an engine, and a client that reads its usage."""

    def __init__(self, upstream: UpstreamClient) -> None:
        self.engine: SimulatedEngine = engine_with()
        self.server = EngineServer(self.engine, "127.0.0.1")
        self._upstream = upstream

    def take(self, number: int) -> None:
        """Have one call leave the engine."""
        usage = self.engine.tracker.usage
        call = usage.open_call(Dispatch(id=number, origin=Origin(project="p")))
        assert call is not None
        usage.close_call(call)

    async def get(self, query: str = "", key: str = "") -> tuple[int, bytes]:
        """Status and body of an answer."""
        headers = engine_headers((), key or self.server.key, b"test")
        address = self.server.host, self.server.port
        response = await self._upstream.request(address, "GET", USAGE_PATH + query, headers)
        return response.status, await read_all(response)

    async def page(self, confirmed: int = 0) -> UsagePage:
        """Next page, after a confirmation."""
        epoch = self.engine.tracker.usage.log.epoch
        status, body = await self.get(f"?epoch={epoch}&confirmed={confirmed}")
        assert status == 200
        return msgspec.msgpack.decode(body, type=UsagePage)


@pytest.fixture
async def reader(upstream: UpstreamClient) -> UsageReader:
    """A reader of a running server."""
    reader = UsageReader(upstream)
    await reader.server.start()
    return reader


async def test_records_are_answered_until_they_are_confirmed(reader: UsageReader) -> None:
    """With the sums of all."""
    reader.take(1)
    reader.take(2)
    assert [each.id for each in (await reader.page()).records] == [1, 2]
    page = await reader.page(confirmed=1)
    assert [each.id for each in page.records] == [2]
    assert page.totals.records == 2
    await reader.server.stop()


async def test_an_answer_waits_for_the_next_record(reader: UsageReader) -> None:
    """It comes as soon as there is one."""
    asking = asyncio.create_task(reader.page())
    await asyncio.sleep(0.1)
    assert not asking.done()
    reader.take(7)
    assert [each.id for each in (await asking).records] == [7]
    await reader.server.stop()


async def test_only_the_gateway_may_ask(reader: UsageReader) -> None:
    """The key is the one that routers have; nonsense is refused."""
    assert (await reader.get(key="wrong"))[0] == 401
    assert (await reader.get("?epoch=x"))[0] == 400
    await reader.server.stop()


async def test_a_stopping_engine_waits_for_the_confirmation(reader: UsageReader) -> None:
    """If Accounts has ever asked; otherwise nobody would come."""
    reader.take(1)
    assert await reader.server.drain(1) == 0
    await reader.page()
    draining = asyncio.create_task(reader.server.drain(1))
    await asyncio.sleep(0.1)
    assert not draining.done()
    polling = asyncio.create_task(reader.page(confirmed=1))
    await draining
    await reader.server.stop()
    await asyncio.gather(polling, return_exceptions=True)
