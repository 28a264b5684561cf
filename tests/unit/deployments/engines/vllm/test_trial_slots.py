"""Slots for trials of grammars."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from deployments.engines.vllm.trial_slots import Client, TrialSlots

HOSTILE, BESIDE, ELSEWHERE = (b"10.0.0.1", b"a"), (b"10.0.0.1", b"b"), (b"10.0.0.2", b"c")


class Trials:
    """Trials that end when they are told to."""

    def __init__(self) -> None:
        self.slots = TrialSlots(6)
        self.running: list[tuple[Client, asyncio.Event]] = []
        self.requests: list[asyncio.Task[str]] = []

    async def ask(self, client: Client, copies: int = 1) -> None:
        """Ask for trials, and let them start that may."""
        for _ in range(copies):
            self.requests.append(asyncio.create_task(self.slots.run(client, self._trial(client))))
        await _settle()

    async def end(self, client: Client) -> None:
        """End the client's oldest trial."""
        next(event for each, event in self.running if each == client).set()
        await _settle()

    def count(self, client: Client) -> int:
        """How many of a client's trials run."""
        return sum(each == client for each, _ in self.running)

    def _trial(self, client: Client) -> Callable[[], Awaitable[str]]:
        async def trial() -> str:
            running = client, asyncio.Event()
            self.running.append(running)
            await running[1].wait()
            self.running.remove(running)
            return "tried"

        return trial


@pytest.fixture
async def trials() -> AsyncIterator[Trials]:
    """Trials, all ended after the test."""
    made = Trials()
    yield made
    for request in made.requests:
        request.cancel()
    await asyncio.wait(made.requests)
    await made.slots.stop()


async def test_one_clients_slow_trials_leave_slots_to_others(trials: Trials) -> None:
    """To another key at its address, and to other addresses."""
    await trials.ask(HOSTILE, copies=20)
    await trials.ask(BESIDE)
    await trials.ask(ELSEWHERE)

    assert [trials.count(client) for client in (HOSTILE, BESIDE, ELSEWHERE)] == [2, 1, 1]


async def test_invented_keys_leave_slots_to_other_addresses(trials: Trials) -> None:
    """Three addresses beside theirs can have a grammar tried at once."""
    for number in range(20):
        await trials.ask((b"10.0.0.1", b"%d" % number))
    others = [(b"10.0.1.%d" % number, b"") for number in range(3)]
    for other in others:
        await trials.ask(other)

    assert len(trials.running) == 6
    assert [trials.count(other) for other in others] == [1, 1, 1]


async def test_a_free_slot_goes_to_whoever_holds_least(trials: Trials) -> None:
    """However many a client has queued before."""
    await trials.ask(HOSTILE, copies=20)
    await trials.ask(BESIDE, copies=2)
    third = (b"10.0.0.1", b"third")
    await trials.ask(third)
    assert trials.count(third) == 0

    await trials.end(HOSTILE)

    assert [trials.count(client) for client in (HOSTILE, BESIDE, third)] == [1, 1, 1]


async def test_a_trial_keeps_its_slot_when_its_client_leaves(trials: Trials) -> None:
    """Nothing can stop it, so it counts to its end."""
    await trials.ask(HOSTILE, copies=3)
    for request in trials.requests[:2]:
        request.cancel()
    await _settle()
    assert trials.count(HOSTILE) == 2

    await trials.end(HOSTILE)
    await trials.end(HOSTILE)
    await trials.end(HOSTILE)

    assert await trials.requests[2] == "tried"


async def test_a_client_that_leaves_before_its_trial_has_none(trials: Trials) -> None:
    """Its place in the queue goes to the next, and no slot is lost."""
    await trials.ask(HOSTILE, copies=4)
    trials.requests[2].cancel()
    await _settle()
    for _ in range(3):
        await trials.end(HOSTILE)
    assert [request.cancelled() for request in trials.requests] == [False, False, True, False]

    await trials.ask(HOSTILE, copies=2)

    assert trials.count(HOSTILE) == 2


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
