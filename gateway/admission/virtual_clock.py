"""Virtual clock of a fair queue: whose turn it is, so that all that wait are served the same.

Method: start-time fair queueing. Each name that waits has a virtual time; the one with the least is
next. Being served adds the cost to its time, and advances the clock to the time it had. A name that
joins starts at the clock's time, with no credit from before; one that comes back while others have
been waiting starts at the time it had reached, if that is later: nobody gains by having nothing
queued for a moment. That time is kept until the clock has passed it, or until nobody waits.

Any number of new names can be served before the clock advances. So it is advanced to the least
of the times kept once there are more than `MAX_GONE`: invented names delay the others no longer
than that, and fill no memory.

Any two names that wait all the time are served the same, give or take a request of each, whatever
others do. Cost: O(log names) a request, amortised.

Source: Goyal, Vin, Cheng: Start-time fair queuing (1996).
"""

import itertools

from gateway.admission.indexed_heap import IndexedHeap

MAX_GONE = 64
"""Names with nothing queued whose virtual times are kept."""


class VirtualClock:
    """Names that wait, by virtual time."""

    def __init__(self) -> None:
        self._waiting: IndexedHeap[bytes] = IndexedHeap()
        """Ranked by virtual time, then by order of arrival there."""
        self._gone: IndexedHeap[bytes] = IndexedHeap()
        """Names with nothing queued that were ahead of the clock, by the time they had reached."""
        self._count = itertools.count()
        self._time = 0.0

    @property
    def first(self) -> bytes | None:
        """Name whose turn it is."""
        return self._waiting.first

    def time_of(self, name: bytes) -> float:
        """Virtual time of a name, or the one it would have if it joined now."""
        rank = self._waiting.ranks.get(name) or self._gone.ranks.get(name)
        return max(self._time, rank[0]) if rank else self._time

    def join(self, name: bytes) -> None:
        """Add a name that does not wait yet."""
        time = self.time_of(name)
        if name in self._gone.ranks:
            self._gone.remove(name)
        self._waiting.add(name, (time, next(self._count)))

    def serve(self, tokens: float, *, is_last: bool) -> None:
        """Serve the first name, at that cost; `is_last`: it has nothing more queued."""
        name = self._waiting.first
        if name is None:
            return
        time = self._waiting.ranks[name][0]
        self._waiting.remove(name)
        self._time = max(self._time, time)
        self._move(name, time + tokens, is_gone=is_last)

    def withdraw(self, name: bytes) -> None:
        """Remove a name that waits without serving it."""
        time = self._waiting.ranks[name][0]
        self._waiting.remove(name)
        self._move(name, time, is_gone=True)

    def _move(self, name: bytes, time: float, *, is_gone: bool) -> None:
        (self._gone if is_gone else self._waiting).add(name, (time, next(self._count)))
        if not self._waiting:
            self._gone = IndexedHeap()
        while (least := self._gone.first) is not None:
            passed = self._gone.ranks[least][0]
            if passed > self._time and len(self._gone) <= MAX_GONE:
                return
            self._time = max(self._time, passed)
            self._gone.remove(least)
