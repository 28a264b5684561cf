"""The relay: calls to engines, and answers that are no streams."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from gateway.errors import UpstreamFailed
from gateway.serving.response_writer import pass_bytes
from gateway.upstream.client import UpstreamClient
from gateway.upstream.engine_call import (
    TOKENIZE,
    WHOLE_LIMIT,
    EngineCall,
    EngineClient,
    read_whole,
)
from tests.unit.conftest import PATIENCE_S, Client, StartEngine, Visit, answer

CHAT = "/v1/chat/completions"


def call(path: str = CHAT, body: bytes = b"{}") -> EngineCall:
    """A call with headers of all kinds."""
    headers = [
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer client-key"),
        (b"x-vllm-priority", b"-100"),
    ]
    return EngineCall(path, headers, body, b"id", dispatch=[(b"x-gateway-dispatch", b"word")])


def script(*parts: bytes, closes: bool = False) -> Callable[[Visit], Awaitable[None]]:
    """Answer with `parts`."""

    async def run(tracked: Visit) -> None:
        await tracked.send(*parts)
        if closes:
            tracked.writer.close()

    return run


async def test_engine_gets_its_key_and_not_the_clients(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The client's key and orders stay outside; the replica's key, id and body arrive."""
    engine = await start_engine(script(answer(b"ok")))
    await EngineClient(upstream).open(call(body=b'{"a":1}'), engine.replica())
    head, _, body = engine.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert set(lines[2:]) == {
        b"content-type: application/json",
        b"authorization: Bearer engine-key",
        b"x-request-id: id",
        b"x-gateway-dispatch: word",
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
    ],
)
async def test_no_answer_has_a_reason(
    start_engine: StartEngine, upstream: UpstreamClient, sent: bytes, reason: str
) -> None:
    """What is no answer to the client is an error that says why, for metrics and for retries."""
    engine = await start_engine(script(sent, closes=True))
    with pytest.raises(UpstreamFailed) as caught:
        await EngineClient(upstream).open(call(), engine.replica())
    assert caught.value.reason == reason


async def test_an_engine_that_is_not_there_is_unreachable(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Nobody has begun any work then."""
    engine = await start_engine(script(b""))
    replica = engine.replica()
    await engine.stop()
    with pytest.raises(UpstreamFailed) as caught:
        await EngineClient(upstream).open(call(), replica)
    assert caught.value.reason == "unreachable"


async def test_an_answer_is_read_to_its_end(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """An answer in pieces is one once it is read."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n"
    engine = await start_engine(script(head, b"ab", b"cd", b"ef"))
    response = await EngineClient(upstream).open(call(), engine.replica())
    assert await read_whole(response) == b"abcdef"
    assert response.is_finished


async def test_a_long_answer_is_not_held(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Beyond a limit bytes pass as they come, in order and once."""
    body, client = b"0123456789" * (WHOLE_LIMIT // 3), Client()
    engine = await start_engine(script(answer(body)))
    response = await EngineClient(upstream).open(call(), engine.replica())
    first = await read_whole(response)
    assert len(first) < len(body)
    await client.reply.begin(200, [])
    await pass_bytes(response, first, client.reply)
    assert client.body == body
    assert client.is_complete


async def test_half_an_answer_is_none(start_engine: StartEngine, upstream: UpstreamClient) -> None:
    """An answer that breaks off while it is read raises."""
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf"
    engine = await start_engine(script(begun, closes=True))
    response = await EngineClient(upstream).open(call(), engine.replica())
    with pytest.raises(UpstreamFailed):
        await read_whole(response)


async def test_tokens_are_asked_of_the_engine(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The engine's own count, under the gateway's key and the request's id."""
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
async def test_tokens_of_an_engine_that_cannot_tell(
    start_engine: StartEngine, upstream: UpstreamClient, routes: tuple[str, ...]
) -> None:
    """An engine without the route, or one that refuses, gives none."""
    engine = await start_engine(script(answer(b"{}", status=b"400 Bad Request")))
    assert await EngineClient(upstream).tokenize(call(TOKENIZE), engine.replica(routes)) is None
    assert len(engine.requests) == (TOKENIZE in routes)


async def test_tokens_of_an_engine_that_fails(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Another engine may do better."""
    engine = await start_engine(script(answer(b"{}", status=b"500 Oh")))
    with pytest.raises(UpstreamFailed):
        await EngineClient(upstream).tokenize(call(TOKENIZE), engine.replica((TOKENIZE,)))


async def test_close_closes_the_connections(start_engine: StartEngine) -> None:
    """The relay's owner gets rid of kept connections through it."""
    relay = EngineClient(UpstreamClient())
    engine = await start_engine(script(answer(b"ok")))
    response = await relay.open(call(), engine.replica())
    await read_whole(response)
    assert not engine.gone.is_set()
    await relay.close()
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
