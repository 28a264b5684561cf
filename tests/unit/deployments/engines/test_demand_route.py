"""Routers' demand for an engine: sent by them, received and summed up by its server."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import msgspec
import pytest

from deployments.engines.asgi import send_json
from deployments.engines.server import EngineServer
from gateway.asgi import Receive, Scope, Send
from gateway.engine_telemetry.router_demand import EXPIRY_S, RouterDemand
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.routing.fleet import Replica
from gateway.serving.demand_publisher import DemandPublisher
from gateway.telemetry.demand import DEMAND_PATH, Demand
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from tests.unit.conftest import Clock, StartEngine, Visit

FACTS = EngineFacts(
    engine="fake", routes=(), kv_tokens=1, block_size=1, max_sequences=1, max_model_len=1
)
SOME = Demand(requests=3, prefill_tokens=900, batch_requests=2)


class FakeEngine:
    """Engine that answers any request."""

    facts = FACTS

    def __init__(self) -> None:
        self.tracker = EngineTracker(FACTS, time.monotonic)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with nothing."""
        if scope["type"] == "http":
            await send_json(send, 200, b"")

    async def check(self) -> None:
        """Be well."""

    async def ping(self) -> None:
        """It works."""

    async def stop(self) -> None:
        """Stop."""


@pytest.fixture
async def server() -> AsyncIterator[EngineServer]:
    """A running engine's server."""
    server = EngineServer(FakeEngine(), "127.0.0.1")
    await server.start()
    yield server
    await server.stop()


def replica(server: EngineServer, port: int = 0) -> Replica:
    """The engine as routers see it."""
    metadata = ReplicaMetadata(
        model="m", host=server.host, port=port or server.port, key=server.key, facts=FACTS
    )
    return Replica(f"replica-{port}", metadata)


async def put(server: EngineServer, body: bytes, method: str = "PUT") -> int:
    """Status of a request to the demand route."""
    url = f"http://{server.host}:{server.port}{DEMAND_PATH}"
    headers = {"authorization": f"Bearer {server.key}"}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, data=body, headers=headers) as response,
    ):
        return response.status


async def test_an_engine_knows_what_routers_hold_back_for_it(server: EngineServer) -> None:
    """Summed over routers; one that holds nothing any longer says so once."""
    held = {replica(server): SOME}
    one, other = (
        DemandPublisher(lambda: held),
        DemandPublisher(lambda: {replica(server): Demand(requests=1)}),
    )
    await one.publish()
    await other.publish()
    await until(lambda: server.demand == Demand(requests=4, prefill_tokens=900, batch_requests=2))
    held.clear()
    await one.publish()
    await until(lambda: server.demand == Demand(requests=1))
    await one.close()
    await other.close()


async def test_demand_is_sent_periodically(server: EngineServer) -> None:
    """From `start` to `close`."""
    number = 0

    def held() -> dict[Replica, Demand]:
        nonlocal number
        number += 1
        return {here: Demand(requests=number)}

    here = replica(server)
    demand_publisher = DemandPublisher(held, period_s=0.01)
    demand_publisher.start()
    while server.demand.requests < 3:
        assert number < 1000
        await asyncio.sleep(0.01)
    await demand_publisher.close()


async def test_projects_that_begin_to_wait_are_reported_at_once(server: EngineServer) -> None:
    """Long before the next periodic report; and so is their end."""
    here = replica(server)
    held = {here: Demand(requests=1, projects={"p": 1})}
    publisher = DemandPublisher(lambda: held, period_s=3600, router="me")
    publisher.start()
    await asyncio.sleep(0)
    held[here] = Demand(requests=2, projects={"p": 1, "q": 1})
    publisher.publish_soon()
    await until(lambda: server.demand.requests == 2)
    held.clear()
    publisher.publish_soon()
    await until(lambda: server.demand == Demand())
    await publisher.close()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    for _ in range(1000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never is")


async def test_an_unreachable_engine_does_not_delay_the_others(server: EngineServer) -> None:
    """They get their demand, and no error is raised."""
    gone, here = replica(server, port=1), replica(server)
    demand_publisher = DemandPublisher(lambda: {gone: SOME, here: SOME})
    await demand_publisher.publish()
    await until(lambda: server.demand.requests == 3)
    await demand_publisher.close()


async def test_an_engine_that_does_not_answer_is_given_up(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closed: at most one is open at a time."""
    monkeypatch.setattr("gateway.serving.demand_publisher.TIMEOUT_S", 0.1)
    engine = await start_engine(_begin)
    demand_publisher = DemandPublisher(lambda: {engine.replica(): SOME})
    await demand_publisher.publish()

    await asyncio.wait_for(engine.gone.wait(), 5)
    await demand_publisher.close()


async def _begin(tracked: Visit) -> None:
    await tracked.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    await tracked.until_gone()


async def test_an_invalid_demand_is_rejected(server: EngineServer) -> None:
    """It changes nothing, and a drain does not wait for it."""
    assert await put(server, b'{"requests": "many"}') == 400
    assert await put(server, msgspec.json.encode(SOME), "GET") == 405
    assert server.demand == Demand()
    assert await put(server, msgspec.json.encode(SOME)) == 200
    assert server.demand == SOME
    assert server.in_flight == 0


def test_a_silent_router_s_demand_expires(clock: Clock) -> None:
    """Requests of a router that died no longer count."""
    demands = RouterDemand(clock)
    demands.record(msgspec.structs.replace(SOME, router="a"))
    clock.now_s += EXPIRY_S - 1
    demands.record(msgspec.structs.replace(SOME, router="b"))
    both = demands.total.requests
    clock.now_s += 2
    one = demands.total.requests
    clock.now_s += EXPIRY_S
    none = demands.total.requests

    assert (both, one, none) == (6, 3, 0)
