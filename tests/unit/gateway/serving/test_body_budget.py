"""The budget for bodies: what a client may hold, who is refused, and what is given up."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.asgi import Message
from gateway.errors.limits import BodyBudgetExceeded
from gateway.serving.body import read_body
from gateway.serving.body_budget import MIB, SMALL_BODY, STALE_S, WAIT_S, BodyBudget
from tests.unit.gateway.serving.test_body import SkippingLoop

LIMIT = 8 * MIB


def budget() -> BodyBudget:
    """A budget of eight MiB."""
    return BodyBudget(lambda: LIMIT)


def sender(*parts: bytes, every_s: float = 0.0) -> Callable[[], Awaitable[Message]]:
    """A `receive` that brings the parts, a pause before each, and then nothing more."""
    left = list(parts)

    async def receive() -> Message:
        if not left:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(every_s)
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    return receive


def test_one_client_holds_at_most_half() -> None:
    """The first half of the budget is there for the asking, but not a byte more."""
    bodies = budget()
    with bodies.open(b"a") as first, bodies.open(b"a") as second:
        first.grow(2 * MIB)
        second.grow(2 * MIB)
        with pytest.raises(BodyBudgetExceeded, match=r"hold 4\.0 MiB of the 8 MiB"):
            second.grow(1)


def test_the_client_that_holds_most_is_refused_first() -> None:
    """While one client is over its share, another still gets in."""
    bodies = budget()
    with bodies.open(b"a") as greedy, bodies.open(b"b") as modest:
        greedy.grow(4 * MIB)
        with pytest.raises(BodyBudgetExceeded):
            greedy.grow(MIB)
        modest.grow(MIB)
        assert bodies.held_bytes == 5 * MIB


def test_many_clients_together_stay_within_the_budget() -> None:
    """However many addresses there are, the sum is bounded."""
    bodies = budget()
    held = [bodies.open(b"%d" % number) for number in range(100)]
    for body in held:
        for _ in range(100):
            try:
                body.grow(MIB // 4)
            except BodyBudgetExceeded:
                break
    assert bodies.held_bytes <= LIMIT


def test_what_ended_is_free_again() -> None:
    """Nothing is left of a request that has ended, however it did."""
    bodies = budget()

    def fail() -> None:
        with bodies.open(b"a") as body:
            body.grow(3 * MIB)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (bodies.held_bytes, bodies.clients) == (0, 0)
    with bodies.open(b"a") as again:
        again.grow(4 * MIB)


def test_small_bodies_are_never_refused() -> None:
    """A client that holds its share still gets small requests answered."""
    bodies = budget()
    with bodies.open(b"a") as large, bodies.open(b"a") as small:
        large.grow(4 * MIB)
        small.grow(SMALL_BODY)
        assert bodies.held_bytes == 4 * MIB + SMALL_BODY


def test_an_announced_length_without_room_is_refused_unread() -> None:
    """Nothing is read of a body for which there will be no room."""

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def read() -> None:
        bodies = budget()
        with bodies.open(b"a") as held:
            await read_body(receive, b"%d" % (5 * MIB), 32, held)

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        with pytest.raises(BodyBudgetExceeded) as refused:
            runner.run(read())
        assert runner.get_loop().time() >= WAIT_S
    assert (b"connection", b"close") in refused.value.headers
    assert (b"retry-after", b"2") in refused.value.headers


def test_a_body_waits_for_room() -> None:
    """A burst of large bodies costs time and nothing else: each is read when there is room."""

    async def run() -> None:
        bodies = budget()
        with bodies.open(b"a") as large:
            large.grow(4 * MIB)
            waiting = asyncio.create_task(whole(bodies, 3 * MIB // 2))
            await asyncio.sleep(WAIT_S / 2)
            assert bodies.held_bytes == 4 * MIB
        assert await waiting == 3 * MIB // 2

    async def whole(bodies: BodyBudget, size: int) -> int:
        async def receive() -> Message:
            return {"type": "http.request", "body": bytes(size), "more_body": False}

        with bodies.open(b"a") as held:
            return len(await read_body(receive, b"%d" % size, 32, held))

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(run())


def test_an_announced_body_counts_before_it_comes() -> None:
    """What has room is not refused in its middle; nor does it keep more than it needs."""

    async def run() -> None:
        bodies = budget()
        with bodies.open(b"a") as first, bodies.open(b"a") as second:
            await first.expect(MIB)
            assert (bodies.held_bytes, first.bodies.arriving) == (MIB, MIB)
            await second.expect(MIB // 2)
            first.arrive(MIB - 1)
            first.complete(1)
            assert (bodies.held_bytes, first.bodies.arriving) == (3 * MIB // 2, MIB // 2)

    asyncio.run(run())


def test_slow_uploads_hold_a_part_of_the_share_only() -> None:
    """Bodies that do not come to their end hold at most a quarter of the whole budget."""

    async def fill() -> int:
        bodies = budget()
        tasks = [asyncio.create_task(_upload(bodies, b"a", MIB)) for _ in range(6)]
        await asyncio.sleep(0.1)
        held = bodies.held_bytes
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert bodies.held_bytes == 0
        return held

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        assert 0 < runner.run(fill()) <= LIMIT / 4


def test_a_stale_upload_gives_way_to_a_newer_one() -> None:
    """The oldest upload of the same address is answered 429, and the newer one goes on."""

    async def run() -> None:
        bodies = budget()
        stale = asyncio.create_task(_upload(bodies, b"a", 2 * MIB))
        await asyncio.sleep(STALE_S + 1)
        newer = asyncio.create_task(_upload(bodies, b"a", MIB))
        with pytest.raises(BodyBudgetExceeded, match="newer ones"):
            await stale
        assert bodies.held_bytes == MIB
        newer.cancel()
        await asyncio.gather(newer, return_exceptions=True)

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(run())


def test_a_fresh_upload_does_not_give_way() -> None:
    """A client cannot push out what has only just begun."""

    async def run() -> None:
        bodies = budget()
        first = asyncio.create_task(_upload(bodies, b"a", 2 * MIB))
        await asyncio.sleep(STALE_S / 2)
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(BodyBudgetExceeded, match="no room"):
            await _upload(bodies, b"a", MIB)
        assert asyncio.get_running_loop().time() == began_s
        assert not first.done()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(run())


async def _upload(bodies: BodyBudget, client: bytes, size: int) -> None:
    """An upload of so many bytes that never comes to its end."""
    with bodies.open(client) as held:
        await read_body(sender(bytes(size)), None, 32, held)
