"""More load than a running system can take: who is answered, and who is turned away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import httpx
import pytest

from loadtests.loadgen.client import rejection_flaw
from loadtests.loadgen.connection import LAST_EVENT
from tests.gateway_process import Document, GatewayProcess, model_application, wait_for

pytestmark = pytest.mark.integration

CHAT = "/v1/chat/completions"
SLOTS = 4
BURST = 24
SMALL_REQUESTS = 4
LONG_TOKENS = 100
"""Of an answer that takes some seconds."""
PAUSE_S = 0.2
"""What a flood leaves between a rejection and the next request."""
PATIENCE_S = 60
SMALL = model_application(
    name="small",
    engine="sim",
    replicas=1,
    queue={"max_wait_s": 30, "max_requests": 12},
    simulation={"max_sequences": SLOTS, "step_s": 0.02},
)


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway with one engine of a few slots."""
    with shared.models(SMALL) as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(gateway: GatewayProcess) -> Iterator[None]:
    """Whatever a test does, the model answers, and nobody waits any more."""
    yield
    status, _ = gateway.chat("small", max_tokens=2)
    assert status == 200
    wait_for(lambda: waiting(gateway.request("POST", "/gateway/route", body(2))[1]) == 0)


def waiting(decision: Document) -> int:
    """How many wait, in the router and in the engine."""
    return sum(candidate["waiting"] for candidate in decision["candidates"])


@asynccontextmanager
async def client(gateway: GatewayProcess, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with an API key, and as many connections as are needed."""
    headers = {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, limits=limits, timeout=PATIENCE_S
    ) as http:
        yield http


def body(max_tokens: int) -> Document:
    """A chat's body."""
    messages = [{"role": "user", "content": "Hello"}]
    return {"model": "small", "messages": messages, "max_tokens": max_tokens, "stream": True}


async def send(
    http: httpx.AsyncClient, max_tokens: int = 20, headers: Mapping[str, str] | None = None
) -> int:
    """The status of an answer that is whole, or of a rejection that says why and until when."""
    response = await http.post(CHAT, json=body(max_tokens), headers=headers)
    if response.status_code == 200:
        assert response.content.endswith(LAST_EVENT)
        assert b'"error"' not in response.content
    else:
        assert response.status_code == 429
        assert rejection_flaw(response.headers.get("retry-after"), response.content) == ""
    return response.status_code


@asynccontextmanager
async def flood(
    http: httpx.AsyncClient, headers: Mapping[str, str] | None = None
) -> AsyncIterator[list[int]]:
    """More than fits, all the time: the statuses so far."""
    statuses: list[int] = []
    is_flooded = asyncio.Event()

    async def send_on() -> None:
        while True:
            statuses.append(await send(http, headers=headers))
            if statuses[-1] == 429:
                is_flooded.set()
                await asyncio.sleep(PAUSE_S)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(send_on()) for _ in range(BURST)]
        await is_flooded.wait()
        yield statuses
        for task in tasks:
            task.cancel()


def test_a_burst_is_answered_or_turned_away(gateway: GatewayProcess) -> None:
    """Every stream is whole, and every rejection has a reason and a `Retry-After`."""

    async def run() -> list[int]:
        async with client(gateway, "burst") as http:
            return await asyncio.gather(*(send(http) for _ in range(BURST)))

    statuses = asyncio.run(run())
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= SLOTS


def test_a_flood_hits_nobody_else(gateway: GatewayProcess) -> None:
    """While one key's requests are turned away, another's are all answered."""

    async def run() -> tuple[list[int], list[int]]:
        async with (
            client(gateway, "flooding") as flooding,
            client(gateway, "small") as small,
            flood(flooding) as others,
        ):
            return [await send(small) for _ in range(SMALL_REQUESTS)], list(others)

    statuses, others = asyncio.run(run())
    assert statuses == [200] * SMALL_REQUESTS
    assert {200, 429} <= set(others)


def test_batch_leaves_interactive_alone(gateway: GatewayProcess) -> None:
    """Interactive requests find slots in a model that batch requests fill, and none waits long."""

    async def run() -> tuple[list[int], list[int]]:
        async with (
            client(gateway, "one") as http,
            flood(http, {"x-gateway-priority": "batch"}) as others,
        ):
            return [await send(http) for _ in range(SMALL_REQUESTS)], list(others)

    statuses, others = asyncio.run(run())
    assert statuses == [200] * SMALL_REQUESTS
    assert 200 in others


def test_who_leaves_the_queue_is_never_started(gateway: GatewayProcess) -> None:
    """Its engine is never asked; those behind it are answered."""

    async def run() -> list[int]:
        async with client(gateway, "leaving") as http:
            full = [asyncio.create_task(send(http, LONG_TOKENS)) for _ in range(SLOTS + 1)]
            await until_waiting(http, 1)
            leaving = asyncio.create_task(send(http, headers={"x-request-id": "left"}))
            await until_waiting(http, 2)
            behind = asyncio.create_task(send(http, headers={"x-request-id": "stayed"}))
            await until_waiting(http, 3)
            leaving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await leaving
            return await asyncio.gather(*full, behind)

    assert set(asyncio.run(run())) == {200}
    _, decisions = gateway.request("GET", "/gateway/decisions")
    started = {decision["request_id"] for decision in decisions["data"]}
    assert {"left", "stayed"} & started == {"stayed"}


async def until_waiting(http: httpx.AsyncClient, count: int) -> None:
    """Wait until so many wait, in the router and in the engine."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            decision = (await http.post("/gateway/route", json=body(2))).json()
            if waiting(decision) >= count:
                return
