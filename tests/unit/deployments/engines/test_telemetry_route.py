"""The telemetry stream of an engine, on a real socket."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from deployments.engines.asgi import send_json
from deployments.engines.control_routes import BACKLOG_BYTES, KEEP_ALIVE_S
from deployments.engines.server import EngineServer
from gateway.asgi import Receive, Scope, Send
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.telemetry.update import TELEMETRY_PATH, Update, UpdateReader, unpack_keys
from tests.unit.conftest import Clock
from tests.unit.tracked import dispatch, engine_facts

FACTS = engine_facts(100_000)


class FakeEngine:
    """Answers every request with its path; the test decides what it reports."""

    facts = FACTS

    def __init__(self) -> None:
        self.clock = Clock()
        self.tracker = EngineTracker(FACTS, self.clock)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send_json(send, 200, scope["path"].encode())

    async def check(self) -> None:
        """Be well."""

    async def ping(self) -> None:
        """It works."""

    async def stop(self) -> None:
        """Hold nothing, release nothing."""

    def serve(self, number: int, *keys: int) -> None:
        """Take and finish a request."""
        tracked = self.tracker.record_arrival(dispatch(number, *keys), 10)
        self.tracker.record_first_token(tracked, 0)
        self.tracker.record_finished(tracked, 1)


class Listener:
    """A router's side of one subscription, on a bare socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = b""
        self._reader = reader
        self._writer = writer
        self._updates = UpdateReader()
        self._frames: list[Update] = []

    async def read_head(self) -> None:
        """Take the response's head."""
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).lower()

    async def next_update(self) -> Update:
        """The next frame."""
        while not self._frames:
            self._frames += self._updates.feed(await self._chunk())
        return self._frames.pop(0)

    async def hear_finished(self, count: int) -> list[int]:
        """The ids of the next requests that have finished."""
        ids: list[int] = []
        while len(ids) < count:
            ids += [request.id for request in (await self.next_update()).finished]
        return ids

    async def hear_end(self) -> None:
        """The proper end of the stream."""
        assert await self._chunk() == b""

    async def read_to_the_break(self) -> None:
        """Read until the connection is closed, which must be in the middle of the stream."""
        try:
            while await self._chunk():
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        pytest.fail("the stream came to a proper end")

    async def leave(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()

    async def _chunk(self) -> bytes:
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(size + 2))[:-2]


@dataclass
class Served:
    """An engine with its server and its subscribers."""

    engine: FakeEngine
    server: EngineServer
    listeners: list[Listener] = field(default_factory=list)

    async def listen(self, method: str = "GET") -> Listener:
        """Subscribe, as far as the response's head."""
        reader, writer = await asyncio.open_connection(sock=self._connect())
        head = f"{method} {TELEMETRY_PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n"
        writer.write(f"{head}authorization: Bearer {self.server.key}\r\n\r\n".encode())
        listener = Listener(reader, writer)
        self.listeners.append(listener)
        await listener.read_head()
        return listener

    def _connect(self) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((self.server.host, self.server.port))
        sock.setblocking(False)
        return sock


@asynccontextmanager
async def served(
    keep_alive_s: float = KEEP_ALIVE_S, backlog_bytes: int = BACKLOG_BYTES
) -> AsyncIterator[Served]:
    """A running server of a fake engine."""
    engine = FakeEngine()
    server = EngineServer(engine, "127.0.0.1", keep_alive_s, backlog_bytes)
    await server.start()
    this = Served(engine, server)
    try:
        yield this
    finally:
        for listener in this.listeners:
            await listener.leave()
        await server.stop()


async def test_a_subscriber_gets_a_snapshot_and_then_changes() -> None:
    """The state before it subscribed, and then every change once."""
    async with served() as this:
        this.engine.serve(1, 11)
        listener = await this.listen()
        assert b"200 ok" in listener.head
        assert b"content-type: application/octet-stream" in listener.head
        assert b"transfer-encoding: chunked" in listener.head

        snapshot = await listener.next_update()
        assert snapshot.is_snapshot
        assert list(unpack_keys(snapshot.added)) == [11]
        assert snapshot.finished == []

        this.engine.serve(2, 12)
        update = await listener.next_update()
        assert not update.is_snapshot
        assert list(unpack_keys(update.added)) == [12]
        assert update.accepted == [2]
        assert [request.id for request in update.finished] == [2]


async def test_frames_are_a_period_apart() -> None:
    """The first change is sent at once; those that follow quickly share a frame."""
    async with served() as this:
        listener = await this.listen()
        await listener.next_update()
        this.engine.serve(1)
        first = await listener.next_update()
        assert [request.id for request in first.finished] == [1]
        for number in range(2, 6):
            this.engine.serve(number)
            await asyncio.sleep(0)
        second = await listener.next_update()
        assert [request.id for request in second.finished] == [2, 3, 4, 5]


async def test_only_keep_alives_are_sent_without_changes() -> None:
    """Empty frames, so that a dead peer is noticed."""
    async with served(keep_alive_s=0.01) as this:
        listener = await this.listen()
        await listener.next_update()
        assert [await listener.next_update() for _ in range(3)] == [Update()] * 3
        this.engine.tracker.record_draining()
        assert [await listener.next_update() for _ in range(3)] == [Update(is_draining=True)] * 3


async def test_a_stall_shows_while_nothing_happens() -> None:
    """Empty frames say for how long the engine has made no progress."""
    async with served(keep_alive_s=0.01) as this:
        listener = await this.listen()
        await listener.next_update()
        this.engine.tracker.record_arrival(dispatch(1), 10)
        this.engine.clock.now_s += 30
        while (await listener.next_update()).stalled_s != 30:
            pass
        this.engine.tracker.record_progress()
        while (await listener.next_update()).stalled_s:
            pass


async def test_a_second_subscriber_causes_no_gap_for_the_first() -> None:
    """Changes in its snapshot are sent to the first as a frame; then both get the same."""
    async with served() as this:
        first = await this.listen()
        await first.next_update()
        for number in range(1, 20):
            this.engine.serve(number, number)
        second = await this.listen()
        snapshot = await second.next_update()
        assert snapshot.is_snapshot
        assert set(unpack_keys(snapshot.added)) == set(range(1, 20))
        this.engine.serve(20, 20)

        assert await first.hear_finished(20) == list(range(1, 21))
        assert await second.hear_finished(1) == [20]


async def test_a_subscriber_that_leaves_does_not_affect_the_others() -> None:
    """Their streams continue; a subscriber that returns gets a new one."""
    async with served() as this:
        first, second = await this.listen(), await this.listen()
        await first.next_update()
        await second.next_update()
        await first.leave()
        this.engine.serve(1)
        assert await second.hear_finished(1) == [1]
        assert (await (await this.listen()).next_update()).is_snapshot


async def test_a_subscriber_that_does_not_read_is_disconnected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its backlog is bounded, and the others get every frame."""
    async with served(backlog_bytes=1_000_000) as this:
        slow, good = await this.listen(), await this.listen()
        await slow.next_update()
        await good.next_update()
        number = 0
        with caplog.at_level(logging.WARNING):
            while not any("does not read" in record.message for record in caplog.records):
                number += 1
                keys = range(number * 100_000, number * 100_000 + 20_000)
                this.engine.tracker.record_finished(
                    this.engine.tracker.record_arrival(dispatch(number, *keys), 9), 1
                )
                await good.hear_finished(1)
        await slow.read_to_the_break()
        this.engine.serve(7)
        assert await good.hear_finished(1) == [7]


async def test_a_drain_is_published_at_once() -> None:
    """Every subscriber learns of it before the drain has ended."""
    async with served() as this:
        listener = await this.listen()
        await listener.next_update()
        assert await this.server.drain(timeout_s=1) == 0
        assert (await listener.next_update()).is_draining
        assert (await (await this.listen()).next_update()).is_draining


async def test_a_stop_ends_the_stream() -> None:
    """Subscribers get the pending changes and a proper end of the stream."""
    async with served() as this:
        listener = await this.listen()
        await listener.next_update()
        this.engine.serve(1)
        await this.server.stop()
        assert await listener.hear_finished(1) == [1]
        await listener.hear_end()


async def test_telemetry_takes_get_only() -> None:
    """Another method gets a 405 that names GET."""
    async with served() as this:
        listener = await this.listen("POST")
        assert b"405" in listener.head.split(b"\r\n")[0]
        assert b"allow: get" in listener.head


async def test_changes_do_not_pile_up_without_subscribers() -> None:
    """They are dropped, as the first subscriber gets a snapshot."""
    async with served() as this:
        for number in range(100):
            this.engine.serve(number + 1)
        assert this.engine.tracker.pop_update() is None
        snapshot = await (await this.listen()).next_update()
        assert snapshot.is_snapshot
        assert snapshot.finished == []
