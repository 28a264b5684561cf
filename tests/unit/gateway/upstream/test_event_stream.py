"""An engine's event stream: forwarded in whole events, broken where the engine fails."""

from collections.abc import Awaitable, Callable

import pytest

from gateway.errors.upstream import UpstreamFailed
from gateway.upstream.client import UpstreamClient
from gateway.upstream.event_stream import forward_events
from gateway.upstream.sse import EventBuffer
from tests.unit.conftest import StartEngine, Visit, chunked

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
TEXT = b'data: {"choices":[]}\n\n'
DONE = b"data: [DONE]\n\n"
ENGINE_ERROR = (
    b'data: {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}'
)
CLIENT_ERROR = b'data: {"error": {"message": "too long", "type": "BadRequestError", "code": 400}}'


class Forwarding:
    """Forwards an engine's stream and records the parts."""

    def __init__(self, upstream: UpstreamClient, start_engine: StartEngine) -> None:
        self._upstream = upstream
        self._start_engine = start_engine
        self.parts: list[bytes] = []

    async def record(self, events: bytes) -> None:
        """Record a part."""
        self.parts.append(events)

    async def run(self, *sent: bytes) -> bytes:
        """Forward what an engine sends in these segments; return all of it."""
        engine = await self._start_engine(_script(*sent))
        response = await self._upstream.request(engine.address, "POST", "/", [])
        last = await forward_events(response, EventBuffer(), self.record)
        return b"".join(self.parts) + last


def _script(*sent: bytes) -> Callable[[Visit], Awaitable[None]]:
    async def run(visit: Visit) -> None:
        await visit.send(HEAD, *sent)
        visit.writer.close()

    return run


@pytest.fixture
def forwarding(upstream: UpstreamClient, start_engine: StartEngine) -> Forwarding:
    """Forwarding of a stream that has not begun."""
    return Forwarding(upstream, start_engine)


@pytest.mark.parametrize(
    "chunks",
    [
        (TEXT, TEXT, DONE),
        (TEXT + TEXT + DONE,),
        (TEXT[:7], TEXT[7:] + TEXT[:3], TEXT[3:], DONE),
        (TEXT, TEXT, DONE[:-1]),
        (TEXT, CLIENT_ERROR + b"\n\n", DONE),
        (b'data: {"error" in what follows is no JSON\n\n', DONE),
        (b'data: {"error": null}\n\n', DONE),
        (b'data: {"choices":["data: {\\"error\\": {\\"code\\": 500}}"]}\n\n', DONE),
    ],
)
async def test_events_are_forwarded_unchanged(
    forwarding: Forwarding, chunks: tuple[bytes, ...]
) -> None:
    """All but an engine's own error is forwarded, however it is split into segments."""
    assert await forwarding.run(*(chunked(c) for c in chunks), END) == b"".join(chunks)


@pytest.mark.parametrize(
    ("chunks", "before"),
    [
        ((TEXT, ENGINE_ERROR + b"\n\n", DONE), TEXT),
        ((TEXT + ENGINE_ERROR + b"\n\n" + DONE,), TEXT),
        ((ENGINE_ERROR + b"\n\n" + DONE,), b""),
        ((TEXT, ENGINE_ERROR[:20], ENGINE_ERROR[20:] + b"\n\n", DONE), TEXT),
        ((TEXT, TEXT + ENGINE_ERROR + b"\n\n"), TEXT + TEXT),
    ],
)
async def test_an_engine_error_event_is_raised(
    forwarding: Forwarding, chunks: tuple[bytes, ...], before: bytes
) -> None:
    """Only the events before it are forwarded."""
    with pytest.raises(UpstreamFailed) as caught:
        await forwarding.run(*(chunked(c) for c in chunks), END)
    assert caught.value.reason == "engine_error"
    assert b"".join(forwarding.parts) == before


async def test_a_broken_stream_raises(forwarding: Forwarding) -> None:
    """Whole events are forwarded, half an event is not."""
    with pytest.raises(UpstreamFailed):
        await forwarding.run(chunked(TEXT + b"data: {"))
    assert b"".join(forwarding.parts) == TEXT
