"""Requests in the order in which they are served: fair among tenants, then by urgency.

Method: start-time fair queueing over tenants. Each tenant that has something queued stands at a
virtual time; the one with the least is served next, with its own request that is due first. That
moves the tenant on by the tokens of the request, and virtual time to where the tenant stood. A
tenant that comes, or comes back, starts at virtual time: with no credit from before, and no debt.
So whatever the others queue, any two tenants that have something queued are served the same tokens,
give or take a request of each. Of tenants with nothing queued nothing is kept.

Cost: O(log tenants + log requests) a request; O(tenants + requests of the tenant) for one that
leaves from the middle, and to tell how many are ahead of one.

Source: Goyal, Vin, Cheng: Start-time fair queuing (1996).
"""

import heapq
import itertools
from dataclasses import dataclass, field
from typing import Generic, TypeVar


@dataclass(slots=True, eq=False)
class Place:
    """A request's place in a queue."""

    tenant: bytes
    tokens: float
    """What it costs to serve."""
    due_s: float
    """The least goes first among those of the tenant."""
    number: int
    """Counts arrivals: of those due at the same time the first to come goes first."""
    is_batch: bool = False
    """It may wait for all that are not."""

    @property
    def rank(self) -> tuple[float, int]:
        """What orders a tenant's requests."""
        return self.due_s, self.number


P = TypeVar("P", bound=Place)


@dataclass(slots=True, eq=False)
class _Share(Generic[P]):
    """What one tenant has queued."""

    turn: tuple[float, int, bytes]
    """The virtual time at which the tenant stands, since when, and the tenant."""
    tokens: float = 0.0
    places: list[tuple[tuple[float, int], P]] = field(default_factory=list)
    """A heap."""


class FairQueue(Generic[P]):
    """Those that wait, none of them twice."""

    def __init__(self) -> None:
        self._shares: dict[bytes, _Share[P]] = {}
        self._turns: list[tuple[float, int, bytes]] = []
        """A heap, with the turn of each share."""
        self._count = itertools.count()
        self._length = 0
        self._virtual_time = 0.0

    def __len__(self) -> int:
        """How many wait."""
        return self._length

    @property
    def first(self) -> P | None:
        """Who is served next."""
        return self._shares[self._turns[0][2]].places[0][1] if self._turns else None

    def add(self, place: P) -> None:
        """One more waits."""
        share = self._shares.get(place.tenant)
        if share is None:
            share = _Share((self._virtual_time, next(self._count), place.tenant))
            self._shares[place.tenant] = share
            heapq.heappush(self._turns, share.turn)
        heapq.heappush(share.places, (place.rank, place))
        share.tokens += place.tokens
        self._length += 1

    def serve(self) -> P:
        """Take the first one out, of a queue that has one, at its tenant's cost."""
        start, _, tenant = heapq.heappop(self._turns)
        share = self._shares[tenant]
        _, place = heapq.heappop(share.places)
        share.tokens -= place.tokens
        self._length -= 1
        self._virtual_time = start
        if share.places:
            share.turn = (start + place.tokens, next(self._count), tenant)
            heapq.heappush(self._turns, share.turn)
        else:
            del self._shares[tenant]
        return place

    def remove(self, place: P) -> None:
        """Take out one that waits, wherever it stands, at no cost."""
        share = self._shares[place.tenant]
        share.places.remove((place.rank, place))
        heapq.heapify(share.places)
        share.tokens -= place.tokens
        self._length -= 1
        if not share.places:
            del self._shares[place.tenant]
            self._turns.remove(share.turn)
            heapq.heapify(self._turns)

    def ahead(self, place: P) -> int:
        """About how many would be served before `place`, which may be in the queue or not yet."""
        start, count = self._virtual_time, 0
        own = self._shares.get(place.tenant)
        if own is not None:
            before = [other.tokens for rank, other in own.places if rank < place.rank]
            start, count = own.turn[0] + sum(before), len(before)
        for share in self._shares.values():
            lead = start - share.turn[0]
            if share is not own and lead >= 0:
                waiting = len(share.places)
                count += min(waiting, 1 + int(lead * waiting / share.tokens))
        return count
