"""Requests in the order in which they are served: fair among tenants, then by urgency.

Method: a queue of queues. Addresses take turns (`VirtualClock`), then the keys of an address, and
of a key's requests the one that is due first is next. So whatever the others queue, any two
addresses that have something queued are served the same tokens, and any two keys of one address,
give or take a request of each. Of an address with nothing queued nothing is kept but where it had
come to.

Cost: O(log tenants + log requests), amortised, for a request that comes or goes; O(addresses + keys
of the address + requests of the key) to tell how many are ahead of one.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from gateway.admission.indexed_heap import IndexedHeap
from gateway.admission.queue_item import QueueItem
from gateway.admission.virtual_clock import VirtualClock

P = TypeVar("P", bound=QueueItem)


class Backlog(NamedTuple):
    """Requests, and what they cost together."""

    requests: int
    tokens: float


class QueueDiscipline(Protocol[P]):
    """Those that wait, none of them twice."""

    tokens: float
    """What all of them cost."""

    def __len__(self) -> int:
        """How many wait."""

    @property
    def first(self) -> P | None:
        """Who is served next."""

    def add(self, place: P) -> None:
        """One more waits."""

    def serve(self) -> P:
        """Take the first one out, of a queue that has one, at its own cost."""

    def remove(self, place: P) -> None:
        """Take out one that waits, wherever it stands, at no cost."""

    def ahead(self, place: P) -> Backlog:
        """About what would be served before `place`, which may be in the queue or not yet."""


class UrgencyQueue(Generic[P]):
    """Those of one tenant: the one that is due first is the first."""

    def __init__(self) -> None:
        self._places: IndexedHeap[P] = IndexedHeap()
        self.tokens = 0.0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._places)

    @property
    def first(self) -> P | None:
        """Who is served next."""
        return self._places.first

    def add(self, place: P) -> None:
        """One more waits."""
        self._places.add(place, place.rank)
        self.tokens += place.tokens

    def serve(self) -> P:
        """Take the first one out, of a queue that has one."""
        place = self._places.first
        if place is None:
            raise LookupError("nobody waits")
        self.remove(place)
        return place

    def remove(self, place: P) -> None:
        """Take out one that waits, wherever it stands."""
        self._places.remove(place)
        self.tokens -= place.tokens

    def ahead(self, place: P) -> Backlog:
        """What would be served before `place`."""
        ranks = self._places.ranks
        before = [other.tokens for other, rank in ranks.items() if rank < place.rank]
        return Backlog(len(before), sum(before))


class FairShareQueue(Generic[P]):
    """Queues that take turns: each has those of one name."""

    def __init__(self, name: Callable[[P], bytes], queue: Callable[[], QueueDiscipline[P]]) -> None:
        self._name = name
        self._make_queue = queue
        self._queues: dict[bytes, QueueDiscipline[P]] = {}
        self._turns = VirtualClock()
        self._length = 0
        self.tokens = 0.0

    def __len__(self) -> int:
        """How many wait."""
        return self._length

    @property
    def first(self) -> P | None:
        """Who is served next."""
        name = self._turns.first
        return None if name is None else self._queues[name].first

    def add(self, place: P) -> None:
        """One more waits."""
        name = self._name(place)
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = self._make_queue()
            self._turns.join(name)
        queue.add(place)
        self._count(1, place.tokens)

    def serve(self) -> P:
        """Take the first one out, of a queue that has one, at the cost of its name."""
        name = self._turns.first
        if name is None:
            raise LookupError("nobody waits")
        queue = self._queues[name]
        place = queue.serve()
        self._count(-1, -place.tokens)
        self._turns.serve(place.tokens, is_last=not queue)
        if not queue:
            del self._queues[name]
        return place

    def remove(self, place: P) -> None:
        """Take out one that waits, wherever it stands, at no cost."""
        name = self._name(place)
        queue = self._queues[name]
        queue.remove(place)
        self._count(-1, -place.tokens)
        if not queue:
            del self._queues[name]
            self._turns.leave(name)

    def ahead(self, place: P) -> Backlog:
        """About what would be served before `place`, which may be in the queue or not yet."""
        name = self._name(place)
        own = self._queues.get(name)
        requests, tokens = own.ahead(place) if own else Backlog(0, 0.0)
        start = self._turns.stand(name) + tokens
        for other, queue in self._queues.items():
            lead = start - self._turns.stand(other)
            if queue is not own and lead >= 0:
                each = queue.tokens / len(queue)
                before = min(len(queue), 1 + int(lead / each))
                requests, tokens = requests + before, tokens + before * each
        return Backlog(requests, tokens)

    def _count(self, requests: int, tokens: float) -> None:
        self._length += requests
        self.tokens += tokens


class FairQueue(FairShareQueue[P]):
    """Fair among addresses, and then among the keys of an address."""

    def __init__(self) -> None:
        super().__init__(_address, lambda: FairShareQueue(_key, UrgencyQueue))


def _address(place: QueueItem) -> bytes:
    return place.tenant.address


def _key(place: QueueItem) -> bytes:
    return place.tenant.key
