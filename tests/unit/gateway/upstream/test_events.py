"""An engine's stream of events: passed on whole, and broken off where the engine fails."""

from collections.abc import Awaitable, Callable

import pytest

from gateway.errors import UpstreamFailed
from gateway.upstream.client import UpstreamClient
from gateway.upstream.events import pass_events
from gateway.upstream.sse import WholeEvents
from tests.unit.conftest import StartEngine, Visit, chunked

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
TEXT = b'data: {"choices":[]}\n\n'
DONE = b"data: [DONE]\n\n"
DEAD = (
    b'data: {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}'
)
CLIENTS = b'data: {"error": {"message": "too long", "type": "BadRequestError", "code": 400}}'


class Passed:
    """What came out."""

    def __init__(self, upstream: UpstreamClient, start_engine: StartEngine) -> None:
        self._upstream = upstream
        self._start_engine = start_engine
        self.parts: list[bytes] = []

    async def take(self, events: bytes) -> None:
        """Take a part."""
        self.parts.append(events)

    async def run(self, *sent: bytes) -> bytes:
        """Pass on what an engine sends, in these segments; all that came out."""
        engine = await self._start_engine(_script(*sent))
        response = await self._upstream.request(engine.address, "POST", "/", [])
        last = await pass_events(response, WholeEvents(), self.take)
        return b"".join(self.parts) + last


def _script(*sent: bytes) -> Callable[[Visit], Awaitable[None]]:
    async def run(tracked: Visit) -> None:
        await tracked.send(HEAD, *sent)
        tracked.writer.close()

    return run


@pytest.fixture
def passed(upstream: UpstreamClient, start_engine: StartEngine) -> Passed:
    """Nothing yet."""
    return Passed(upstream, start_engine)


@pytest.mark.parametrize(
    "chunks",
    [
        (TEXT, TEXT, DONE),
        (TEXT + TEXT + DONE,),
        (TEXT[:7], TEXT[7:] + TEXT[:3], TEXT[3:], DONE),
        (TEXT, TEXT, DONE[:-1]),
        (TEXT, CLIENTS + b"\n\n", DONE),
        (b'data: {"error" in what follows is no JSON\n\n', DONE),
        (b'data: {"error": null}\n\n', DONE),
        (b'data: {"choices":["data: {\\"error\\": {\\"code\\": 500}}"]}\n\n', DONE),
    ],
)
async def test_events_pass_unchanged(passed: Passed, chunks: tuple[bytes, ...]) -> None:
    """Whatever is not an engine's own failure passes, however it is cut into pieces."""
    assert await passed.run(*(chunked(c) for c in chunks), END) == b"".join(chunks)


@pytest.mark.parametrize(
    ("chunks", "before"),
    [
        ((TEXT, DEAD + b"\n\n", DONE), TEXT),
        ((TEXT + DEAD + b"\n\n" + DONE,), TEXT),
        ((DEAD + b"\n\n" + DONE,), b""),
        ((TEXT, DEAD[:20], DEAD[20:] + b"\n\n", DONE), TEXT),
        ((TEXT, TEXT + DEAD + b"\n\n"), TEXT + TEXT),
    ],
)
async def test_an_engine_s_failure_is_no_event(
    passed: Passed, chunks: tuple[bytes, ...], before: bytes
) -> None:
    """The failure is raised, and only what came before it has been passed on."""
    with pytest.raises(UpstreamFailed) as caught:
        await passed.run(*(chunked(c) for c in chunks), END)
    assert caught.value.reason == "engine_error"
    assert b"".join(passed.parts) == before


async def test_a_stream_that_breaks_raises(passed: Passed) -> None:
    """What is whole has been passed on, half an event has not."""
    with pytest.raises(UpstreamFailed):
        await passed.run(chunked(TEXT + b"data: {"))
    assert b"".join(passed.parts) == TEXT
