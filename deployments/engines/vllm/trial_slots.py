"""Slots for trials of grammars, shared among clients so that no one's slow grammars block others'.

Method: dynamic thresholds (Choudhury and Hahne, 1998) in two levels, because keys can be invented.
The trials of a client and those of its whole address together stay below the number of free slots.
With six slots, one client gets two, another key at its address one, and three stay free for other
addresses, of which the next gets one or two. A free slot goes to whose address, then key, has the
fewest trials, and among those to whoever has waited longest.

A trial cannot be stopped. So it keeps its slot to its end, even if its client leaves.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Client = tuple[bytes, bytes]
"""Address and key of a client."""
ANONYMOUS: Client = (b"", b"")


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    client: Client
    start: asyncio.Future[None]


class TrialSlots:
    """Slots of one engine."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[Client] = Counter()
        self._held_by_address: Counter[bytes] = Counter()
        self._waiting: list[_Waiting] = []
        self._running: set[asyncio.Task[str]] = set()

    async def run(self, client: Client, trial: Callable[[], Awaitable[str]]) -> str:
        """Result of a trial, which begins when the client may have a slot for it."""
        waiting = _Waiting(client, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._start_next()
        try:
            await waiting.start
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:
                self._release(client)
            raise
        running = asyncio.create_task(self._run(client, trial), name="grammar-trial")
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return await asyncio.shield(running)

    async def stop(self) -> None:
        """End all trials."""
        for running in self._running:
            running.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _run(self, client: Client, trial: Callable[[], Awaitable[str]]) -> str:
        try:
            return await trial()
        finally:
            self._release(client)

    def _release(self, client: Client) -> None:
        self._free += 1
        self._held -= Counter([client])  # in place; it keeps no zeros
        self._held_by_address -= Counter([client[0]])
        self._start_next()

    def _start_next(self) -> None:
        while allowed := [each for each in self._waiting if self._may_start(each.client)]:
            first = min(allowed, key=self._holding)
            self._waiting.remove(first)
            self._free -= 1
            self._held[first.client] += 1
            self._held_by_address[first.client[0]] += 1
            first.start.set_result(None)

    def _may_start(self, client: Client) -> bool:
        return self._held[client] < self._free - self._held_by_address[client[0]]

    def _holding(self, waiting: _Waiting) -> tuple[int, int]:
        return self._held_by_address[waiting.client[0]], self._held[waiting.client]
