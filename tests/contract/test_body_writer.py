"""Parts of a body that are written past uvicorn's `send`: the same bytes, in the same order."""

import asyncio
import logging
import types
from collections.abc import Callable
from typing import Any, cast

import httptools
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from ray.serve._private.http_util import RequestIdMiddleware
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from deployments.serve_internals.body_writer import CycleBodyWriter, body_writer_behind
from deployments.serve_internals.fallback import warn_once
from deployments.serve_internals.head_coalescing import HeadCoalescingTransport
from deployments.serve_internals.router_protocol import (
    DEFAULT_PROTOCOL,
    end_by_close,
    install_router_protocol,
)
from gateway.asgi import Headers
from gateway.upstream.chunks import as_chunk
from gateway.upstream.client import UpstreamClient
from loadtests.router import on_uvicorn
from tests.contract.test_direct_ingress import OneReplica, Wire, post, running, talk
from tests.unit.conftest import StartEngine, Visit
from tests.unit.surface import Surface

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
EVENTS = [b'data: {"choices":[{"index":0,"text":"%d"}]}\n\n' % number for number in range(12)]
DONE = b"data: [DONE]\n\n"


def cycle_on(transport: Any, *, method: str = "POST") -> RequestResponseCycle:
    """uvicorn's state of a request whose client is behind `transport`."""
    return RequestResponseCycle(
        scope=cast("Any", {"type": "http", "method": method, "http_version": "1.1"}),
        transport=transport,
        flow=FlowControl(transport),
        logger=logging.getLogger("uvicorn.error"),
        access_logger=logging.getLogger("uvicorn.access"),
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )


async def begin(cycle: RequestResponseCycle, headers: Headers | None = None) -> None:
    """Send the head of a response."""
    message = {"type": "http.response.start", "status": 200, "headers": headers or []}
    await cycle.send(cast("Any", message))


async def send(cycle: RequestResponseCycle, body: bytes, *, more: bool = True) -> None:
    """Send a part of its body."""
    message = {"type": "http.response.body", "body": body, "more_body": more}
    await cycle.send(cast("Any", message))


def writer_of(cycle: RequestResponseCycle) -> CycleBodyWriter:
    """The writer for a request."""
    writer = body_writer_behind(cast("Any", cycle.send))
    assert writer is not None
    return writer


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.integers(0, 2)), max_size=8))
def test_written_parts_look_like_sent_ones(parts: list[tuple[bytes, int]]) -> None:
    """With or without chunks that they came in, and whatever was sent between."""

    async def said(*, can_write: bool) -> list[bytes]:
        wire = Wire()
        loop = asyncio.get_running_loop()
        cycle = cycle_on(HeadCoalescingTransport(cast("asyncio.Transport", wire), loop))
        writer = writer_of(cycle)
        await begin(cycle)
        for body, way in parts:
            chunks = as_chunk(body) if way == 2 else b""
            if not (can_write and way and writer.write(body, chunks)):
                await send(cycle, body)
        await send(cycle, b"", more=False)
        return wire.writes

    sent = asyncio.run(said(can_write=False))
    written = asyncio.run(said(can_write=True))
    assert b"".join(written) == b"".join(sent)


async def test_nothing_is_written_before_the_head_or_after_the_end() -> None:
    """Both are `send`'s."""
    wire = Wire()
    cycle = cycle_on(wire)
    writer = writer_of(cycle)
    assert not writer.write(b"early", b"")
    await begin(cycle)
    assert writer.write(b"part", b"")
    await send(cycle, b"", more=False)
    before = list(wire.writes)

    assert not writer.write(b"late", b"")
    assert wire.writes == before


async def test_a_slow_client_is_written_to_once_it_has_caught_up() -> None:
    """uvicorn's flow control says so."""
    wire = Wire()
    cycle = cycle_on(wire)
    writer = writer_of(cycle)
    await begin(cycle)
    cycle.flow.pause_writing()
    assert not writer.write(b"part", b"")
    cycle.flow.resume_writing()
    assert writer.write(b"part", b"")
    cycle.disconnected = True
    assert not writer.write(b"part", b"")


@pytest.mark.parametrize(
    ("method", "headers"), [("POST", [(b"content-length", b"9")]), ("HEAD", [])], ids=str
)
async def test_a_body_with_a_length_or_without_a_body_is_sent(
    method: str, headers: Headers
) -> None:
    """Only `send` keeps count."""
    wire = Wire()
    cycle = cycle_on(wire, method=method)
    writer = writer_of(cycle)
    await begin(cycle, headers)

    assert not writer.write(b"part", b"")
    assert len(wire.writes) == 1


async def test_nothing_bypasses_what_wraps_send() -> None:
    """A middleware wants to see what is sent, and HTTP/1.0 gets no chunks."""
    cycle = cycle_on(Wire())

    async def wrapped(message: Any) -> None:
        await cycle.send(message)

    assert body_writer_behind(wrapped) is None
    end_by_close(cycle)
    assert body_writer_behind(cast("Any", cycle.send)) is None


@pytest.mark.parametrize(
    "name",
    [
        *("flow", "disconnected", "response_complete", "transport", "response_started"),
        "chunked_encoding",
    ],
)
async def test_events_are_sent_if_a_name_is_gone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning, and before the first of them."""
    warn_once.cache_clear()
    cycle = cycle_on(Wire())
    own_send = cast("Any", cycle.send)
    delattr(cycle, name)

    assert body_writer_behind(own_send) is None
    assert "passes through ASGI" in caplog.text


def slow_engine(head: bytes, wire: list[bytes]) -> Callable[[Visit], Any]:
    """An engine whose events come one by one."""

    async def script(visit: Visit) -> None:
        await visit.send(head)
        for part in wire:
            await asyncio.sleep(0.004)
            await visit.send(part)
        if b"content-length" not in head and b"chunked" not in head:
            visit.writer.close()

    return script


def answered(raw: bytes) -> bytes:
    """The body of a whole response to HTTP/1.1."""
    body: list[bytes] = []
    ends: list[bool] = []
    reader = types.SimpleNamespace(
        on_body=body.append, on_message_complete=lambda: ends.append(True)
    )
    httptools.HttpResponseParser(reader).feed_data(raw)
    assert ends == [True]
    return b"".join(body)


@pytest.mark.parametrize("is_old", [False, True], ids=["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("framing", ["chunks", "length", "close", "halves"])
async def test_a_router_answers_with_the_same_bytes_either_way(
    upstream: UpstreamClient,
    start_engine: StartEngine,
    monkeypatch: pytest.MonkeyPatch,
    framing: str,
    is_old: bool,
) -> None:
    """In a replica, by Serve's server, and by ASGI alone: the last never writes past it."""
    monkeypatch.setitem(HTTP_PROTOCOLS, DEFAULT_PROTOCOL, HTTP_PROTOCOLS[DEFAULT_PROTOCOL])
    body = b"".join(EVENTS) + DONE
    chunks = [as_chunk(event) for event in EVENTS] + [as_chunk(DONE) + b"0\r\n\r\n"]
    chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n"
    head, parts = {
        "chunks": (chunked, chunks),
        "halves": (chunked, [half for c in chunks for half in (c[:9], c[9:])]),
        "length": (HEAD + b"content-length: %d\r\n\r\n" % len(body), [*EVENTS, DONE]),
        "close": (HEAD + b"\r\n", [*EVENTS, DONE]),
    }[framing]
    surface = Surface(upstream)
    surface.add("m", await start_engine(slow_engine(head, parts)))
    install_router_protocol(surface.router.app)
    written: list[bytes] = []
    write = CycleBodyWriter.write

    def recorded(self: CycleBodyWriter, part: bytes, raw: bytes) -> bool:
        is_written = write(self, part, raw)
        if is_written:
            written.append(part)
        return is_written

    monkeypatch.setattr(CycleBodyWriter, "write", recorded)
    request = post(b'{"model":"m","stream":true}', b"connection: close\r\n")
    if not is_old:
        request = request.replace(b"HTTP/1.0", b"HTTP/1.1\r\nhost: x")
    bodies: list[bytes] = []
    uses: list[bool] = []
    for app in (
        RequestIdMiddleware(OneReplica()._direct_ingress_asgi),
        on_uvicorn(surface.router.app),
        surface.router.app,
    ):
        config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, interface="asgi3")
        async with running(uvicorn.Server(config)) as url:
            raw = await talk(url, request)
        uses.append(bool(written))
        written.clear()
        bodies.append(raw.partition(b"\r\n\r\n")[2] if is_old else answered(raw))

    assert bodies == [body] * 3
    can_write = not is_old and framing in {"chunks", "close"}
    assert uses == [can_write, can_write, False]
