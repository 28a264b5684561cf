"""Whose turn it is, so that whoever waits is served as much as any other.

Method: start-time fair queueing. Each that waits stands at a virtual time; the one with the least
is next. Being served moves it on by what that costs, and virtual time to where it stood. One that
comes starts at virtual time, with no credit from before; one that comes back while others have been
waiting starts where it had come to, if that is later: nobody gains by having nothing queued for a
moment. Where one had come to is kept until virtual time has passed it, or until nobody waits.

As many newcomers as want can be served before virtual time gets on. So it is moved on to where the
least of those had come to, of whom there are more than `REMEMBERED`: whoever invents names holds up
the others no longer than that, and fills no memory.

Any two that wait all the time are served the same, give or take a request of each, whatever others
do. Cost: O(log names) a request, amortised.

Source: Goyal, Vin, Cheng: Start-time fair queuing (1996).
"""

import itertools

from gateway.admission.indexed_heap import IndexedHeap

REMEMBERED = 64
"""Of how many that have nothing queued it is known where they had come to."""


class VirtualClock:
    """Those who wait, by name."""

    def __init__(self) -> None:
        self._waiting: IndexedHeap[bytes] = IndexedHeap()
        """By where they stand, then by since when."""
        self._gone: IndexedHeap[bytes] = IndexedHeap()
        """By where they had come to, beyond virtual time."""
        self._count = itertools.count()
        self._time = 0.0

    @property
    def first(self) -> bytes | None:
        """Whose turn it is."""
        return self._waiting.first

    def stand(self, name: bytes) -> float:
        """The virtual time at which one stands, or would if it came now."""
        rank = self._waiting.ranks.get(name) or self._gone.ranks.get(name)
        return max(self._time, rank[0]) if rank else self._time

    def join(self, name: bytes) -> None:
        """One that does not wait yet does."""
        stand = self.stand(name)
        if name in self._gone.ranks:
            self._gone.remove(name)
        self._waiting.add(name, (stand, next(self._count)))

    def serve(self, tokens: float, *, is_last: bool) -> None:
        """Serve the first one; `is_last`: it has nothing more queued."""
        name = self._waiting.first
        if name is None:
            return
        stand = self._waiting.ranks[name][0]
        self._waiting.remove(name)
        self._time = max(self._time, stand)
        self._move(name, stand + tokens, is_gone=is_last)

    def leave(self, name: bytes) -> None:
        """One that waits goes without having been served."""
        stand = self._waiting.ranks[name][0]
        self._waiting.remove(name)
        self._move(name, stand, is_gone=True)

    def _move(self, name: bytes, stand: float, *, is_gone: bool) -> None:
        (self._gone if is_gone else self._waiting).add(name, (stand, next(self._count)))
        if not self._waiting:
            self._gone = IndexedHeap()
        while (least := self._gone.first) is not None:
            passed = self._gone.ranks[least][0]
            if passed > self._time and len(self._gone) <= REMEMBERED:
                return
            self._time = max(self._time, passed)
            self._gone.remove(least)
