"""The hostile client of `loadtests.abuse`."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from loadtests.attacks import COPY, Attack
from loadtests.hostile_client import HostileClient

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@contextlib.asynccontextmanager
async def attacked() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server's port, and the bodies that came."""
    bodies: list[bytes] = []
    ended: asyncio.Queue[None] = asyncio.Queue()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ") for line in head.split(b"\r\n")[1:-2])
                bodies.append(await reader.readexactly(int(fields[b"content-length"])))
                writer.write(ANSWER)
        writer.close()
        ended.put_nowait(None)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], bodies
        for _ in range(connections):  # their client has closed them
            await ended.get()


async def sent(attack: Attack) -> Counter[bytes]:
    """How often each body of an attack is sent."""
    async with attacked() as (port, bodies):
        client = HostileClient(port, "m", [attack])
        client.prepare()
        await client.attack(0)
        assert client.log.answers == {attack.name: Counter({"200": len(bodies)})}
    return Counter(bodies)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else asks."""
    monkeypatch.setattr("loadtests.hostile_client.PAUSE_S", 0.0)


async def test_copies_differ_where_they_are_numbered() -> None:
    """A server that remembers one does not know the others."""
    numbered = Attack("numbered", "/", lambda _: b"<" + COPY + b">", copies=3)
    assert sorted((await sent(numbered)).values()) == [1, 1, 1]


async def test_one_request_is_repeated() -> None:
    """The same again, as often as the attack says."""
    repeated = Attack("repeated", "/", lambda _: b"x", copies=2, repeats=5)
    assert await sent(repeated) == {b"x": 10}
