"""Calls to engines, and responses that are no streams."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from gateway.errors.upstream import UpstreamFailed
from gateway.serving.response_writer import forward_bytes
from gateway.upstream.client import UpstreamClient
from gateway.upstream.engine_call import (
    BUFFER_LIMIT,
    TOKENIZE,
    EngineCall,
    EngineClient,
    read_all,
)
from tests.unit.conftest import PATIENCE_S, Client, StartEngine, Visit, answer

CHAT = "/v1/chat/completions"


def call(path: str = CHAT, body: bytes = b"{}") -> EngineCall:
    """Build a call with all kinds of headers."""
    headers = [
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer client-key"),
        (b"x-vllm-priority", b"-100"),
    ]
    return EngineCall(
        path, headers, body, b"id", dispatch_headers=[(b"x-gateway-dispatch", b"dispatch")]
    )


def script(*parts: bytes, closes: bool = False) -> Callable[[Visit], Awaitable[None]]:
    """Respond with `parts`."""

    async def run(visit: Visit) -> None:
        await visit.send(*parts)
        if closes:
            visit.writer.close()

    return run


async def test_an_engine_gets_its_own_key_and_not_the_clients(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The client's key and engine controls are dropped; the replica's key, id and body arrive."""
    engine = await start_engine(script(answer(b"ok")))
    await EngineClient(upstream).send(call(body=b'{"a":1}'), engine.replica())
    head, _, body = engine.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert set(lines[2:]) == {
        b"content-type: application/json",
        b"authorization: Bearer engine-key",
        b"x-request-id: id",
        b"x-gateway-dispatch: dispatch",
        b"content-length: 7",
    }
    assert body == b'{"a":1}'


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "broke_off"),
        (b"garbage\r\n\r\n", "invalid"),
        (answer(b"{}", status=b"401 Unauthorized"), "key"),
        (answer(b"{}", b"x-engine-draining: 1", status=b"503 Service Unavailable"), "draining"),
        (answer(b"{}", b"x-engine-draining: died", status=b"503 Service Unavailable"), "died"),
    ],
)
async def test_a_failed_call_has_a_reason(
    start_engine: StartEngine, upstream: UpstreamClient, sent: bytes, reason: str
) -> None:
    """The reason of a failure is used by metrics and retries."""
    engine = await start_engine(script(sent, closes=True))
    with pytest.raises(UpstreamFailed) as caught:
        await EngineClient(upstream).send(call(), engine.replica())
    assert caught.value.reason == reason


async def test_a_stopped_engine_is_unreachable(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The reason says that no engine has begun any work."""
    engine = await start_engine(script(b""))
    replica = engine.replica()
    await engine.stop()
    with pytest.raises(UpstreamFailed) as caught:
        await EngineClient(upstream).send(call(), replica)
    assert caught.value.reason == "unreachable"


async def test_a_response_is_read_to_its_end(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The pieces of a response are joined."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n"
    engine = await start_engine(script(head, b"ab", b"cd", b"ef"))
    response = await EngineClient(upstream).send(call(), engine.replica())
    assert await read_all(response) == b"abcdef"
    assert response.is_finished


async def test_a_long_response_is_forwarded_in_parts(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Bytes beyond the limit are forwarded as they arrive, in order and once."""
    body, client = b"0123456789" * (BUFFER_LIMIT // 3), Client()
    engine = await start_engine(script(answer(body)))
    response = await EngineClient(upstream).send(call(), engine.replica())
    first = await read_all(response)
    assert len(first) < len(body)
    await client.response.begin(200, [])
    await forward_bytes(response, first, client.response)
    assert client.body == body
    assert client.is_complete


async def test_a_response_that_breaks_off_is_an_error(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Half a response is not returned."""
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf"
    engine = await start_engine(script(begun, closes=True))
    response = await EngineClient(upstream).send(call(), engine.replica())
    with pytest.raises(UpstreamFailed):
        await read_all(response)


async def test_tokenize_asks_the_engine(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The call has the gateway's key and the request's id."""
    body = json.dumps({"count": 2, "max_model_len": 9, "tokens": [7, 8]}).encode()
    engine = await start_engine(script(answer(body)))
    replica = engine.replica((CHAT, TOKENIZE))
    assert await EngineClient(upstream).tokenize(call(TOKENIZE, b'{"prompt":"x"}'), replica) == [
        7,
        8,
    ]
    assert engine.requests[0].startswith(b"POST /tokenize HTTP/1.1\r\n")
    assert engine.requests[0].endswith(b'{"prompt":"x"}')


@pytest.mark.parametrize("routes", [(CHAT,), (CHAT, TOKENIZE)])
async def test_tokenize_returns_none_if_the_engine_cannot(
    start_engine: StartEngine, upstream: UpstreamClient, routes: tuple[str, ...]
) -> None:
    """It lacks the route, or rejects the call."""
    engine = await start_engine(script(answer(b"{}", status=b"400 Bad Request")))
    assert await EngineClient(upstream).tokenize(call(TOKENIZE), engine.replica(routes)) is None
    assert len(engine.requests) == (TOKENIZE in routes)


async def test_tokenize_raises_if_the_engine_fails(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Another engine may succeed."""
    engine = await start_engine(script(answer(b"{}", status=b"500 Oh")))
    with pytest.raises(UpstreamFailed):
        await EngineClient(upstream).tokenize(call(TOKENIZE), engine.replica((TOKENIZE,)))


async def test_close_closes_the_connections(start_engine: StartEngine) -> None:
    """Closing the client closes the pooled connections."""
    client = EngineClient(UpstreamClient())
    engine = await start_engine(script(answer(b"ok")))
    response = await client.send(call(), engine.replica())
    await read_all(response)
    assert not engine.gone.is_set()
    await client.close()
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
