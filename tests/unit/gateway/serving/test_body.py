"""The reader of bodies: how large they may be, and how slowly they may come."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from gateway.asgi import Message
from gateway.errors.request import BodyTooLarge, BodyTooSlow, InvalidRequest
from gateway.serving.body import (
    GRACE_S,
    PACE_BYTES_PER_S,
    ClientDisconnected,
    read_body,
)

MIB = 1024 * 1024
LIMIT_MB = 32


class Skip(selectors.SelectSelector):
    """Waits for nothing: what the loop wants to wait is added to its clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now."""
        self.now_s += timeout or 0.0
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop on which time passes only in waiting, and then at once."""

    def __init__(self) -> None:
        self._skip = Skip()
        super().__init__(self._skip)

    def time(self) -> float:
        """Seconds that were waited for."""
        return self._skip.now_s


def run(reading: Coroutine[Any, Any, bytes]) -> bytes:
    """The body, read without waiting for its pauses."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(reading)


def client(
    *parts: bytes, every_s: float = 0.0, is_complete: bool = True
) -> Callable[[], Awaitable[Message]]:
    """A `receive` that brings the parts, a pause before each, and then the end or nothing more."""
    messages: list[Message] = [
        {"type": "http.request", "body": p, "more_body": True} for p in parts
    ]
    if is_complete:
        messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        if not messages:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(every_s)
        return messages.pop(0)

    return receive


def test_parts_of_a_body_are_joined() -> None:
    """Its parts are joined in order."""
    assert run(read_body(client(b"ab", b"", b"cd"), b"4", LIMIT_MB)) == b"abcd"


def test_a_body_that_stops_is_too_slow() -> None:
    """After half of the body the client sends nothing more: the gateway stops waiting."""
    with pytest.raises(BodyTooSlow, match="3 bytes"):
        run(read_body(client(b"abc", is_complete=False), b"6", LIMIT_MB))


def test_a_body_that_never_begins_is_too_slow() -> None:
    """Headers that announce a body, and nothing else."""
    with pytest.raises(BodyTooSlow, match="0 bytes"):
        run(read_body(client(is_complete=False), None, LIMIT_MB))


def test_a_byte_a_second_is_too_slow() -> None:
    """Each byte is progress, and yet the body would take hours."""
    with pytest.raises(BodyTooSlow):
        run(read_body(client(*[b"x"] * 60, every_s=1), None, LIMIT_MB))


def test_a_large_body_has_the_time_it_takes() -> None:
    """A body of any size is accepted at the minimum pace, long after the first seconds."""
    part = bytes(PACE_BYTES_PER_S)
    count = int(4 * GRACE_S)

    body = run(read_body(client(*[part] * count, every_s=1), None, LIMIT_MB))

    assert len(body) == count * PACE_BYTES_PER_S


def test_a_fast_beginning_earns_no_extra_time() -> None:
    """A client that sends most of a body at once and then stops gets no longer wait."""

    async def given_up_s() -> bytes:
        with pytest.raises(BodyTooSlow):
            await read_body(client(bytes(20 * MIB), is_complete=False), None, LIMIT_MB)
        return b"%d" % asyncio.get_running_loop().time()

    assert float(run(given_up_s())) <= GRACE_S


def test_an_announced_length_earns_no_extra_time() -> None:
    """Only bytes that arrive extend the time, not those that `content-length` announces."""
    with pytest.raises(BodyTooSlow):
        run(read_body(client(b"x", b"x", every_s=GRACE_S * 0.6), b"%d" % MIB, LIMIT_MB))


def test_an_announced_length_over_the_limit_is_refused_unread() -> None:
    """Nothing is read of a body that says that it will be too large."""

    async def receive() -> Message:
        raise AssertionError("the body was read")

    with pytest.raises(BodyTooLarge, match="1 MiB"):
        run(read_body(receive, b"%d" % (MIB + 1), 1))


def test_a_body_without_end_is_refused_at_the_limit() -> None:
    """A chunked body announces no length, so its bytes are counted as they arrive."""
    endless = client(*[bytes(MIB)] * 3, is_complete=False)

    with pytest.raises(BodyTooLarge):
        run(read_body(endless, None, 2))


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"0x10", b"", b"9" * 5000, b"\xd9\xa1"])
def test_a_length_that_is_no_number_is_refused(length: bytes) -> None:
    """So is one with so many digits that Python would take long to parse it."""
    with pytest.raises(InvalidRequest, match="content-length"):
        run(read_body(client(b"x"), length, LIMIT_MB))


def test_a_client_that_disconnects_is_not_reported_as_slow() -> None:
    """No client is left to get an error."""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnected):
        run(read_body(receive, None, LIMIT_MB))
