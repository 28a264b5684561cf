"""Fair queue of requests: fair among tenants, then by urgency.

Method: a queue of queues. Addresses take turns (`VirtualClock`), then the keys of an address, and
of a key's requests the one due first is next. So whatever others queue, any two addresses that have
something queued are served the same tokens, and any two keys of one address, give or take a request
of each. Of an address with nothing queued only its virtual time is kept. Where clients are
authenticated, their project stands for the address.

Cost: O(log tenants + log requests), amortised, for a request that is added or removed; O(addresses
+ keys of the address + requests of the key) to count the requests ahead of one.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from gateway.admission.indexed_heap import IndexedHeap
from gateway.admission.queue_item import QueueItem
from gateway.admission.virtual_clock import VirtualClock

Q = TypeVar("Q", bound=QueueItem)


class Backlog(NamedTuple):
    """Number of requests, and what they cost together."""

    requests: int
    tokens: float


class QueueDiscipline(Protocol[Q]):
    """Queue of distinct requests, in some order."""

    tokens: float
    """Cost of all requests."""

    def __len__(self) -> int:
        """How many requests wait."""

    @property
    def first(self) -> Q | None:
        """The request to serve next."""

    def add(self, item: Q) -> None:
        """Add a request."""

    def serve(self) -> Q:
        """Take out the first request, of a queue that has one, at its cost."""

    def remove(self, item: Q) -> None:
        """Take out a request, wherever it stands, at no cost."""

    def ahead(self, item: Q) -> Backlog:
        """About what would be served before `item`, which need not be in the queue yet."""


class UrgencyQueue(Generic[Q]):
    """Requests of one tenant: the one due first is served first."""

    def __init__(self) -> None:
        self._items: IndexedHeap[Q] = IndexedHeap()
        self.tokens = 0.0

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._items)

    @property
    def first(self) -> Q | None:
        """The request to serve next."""
        return self._items.first

    def add(self, item: Q) -> None:
        """Add a request."""
        self._items.add(item, item.rank)
        self.tokens += item.tokens

    def serve(self) -> Q:
        """Take out the first request, of a queue that has one."""
        item = self._items.first
        if item is None:
            raise LookupError("the queue is empty")
        self.remove(item)
        return item

    def remove(self, item: Q) -> None:
        """Take out a request, wherever it stands."""
        self._items.remove(item)
        self.tokens -= item.tokens

    def ahead(self, item: Q) -> Backlog:
        """Requests that would be served before `item`."""
        ranks = self._items.ranks
        before = [other.tokens for other, rank in ranks.items() if rank < item.rank]
        return Backlog(len(before), sum(before))


class FairShareQueue(Generic[Q]):
    """Queues that take turns, one for each name."""

    def __init__(self, name: Callable[[Q], bytes], queue: Callable[[], QueueDiscipline[Q]]) -> None:
        self._name = name
        self._make_queue = queue
        self._queues: dict[bytes, QueueDiscipline[Q]] = {}
        self._clock = VirtualClock()
        self._length = 0
        self.tokens = 0.0

    def __len__(self) -> int:
        """How many requests wait."""
        return self._length

    @property
    def first(self) -> Q | None:
        """The request to serve next."""
        name = self._clock.first
        return None if name is None else self._queues[name].first

    def add(self, item: Q) -> None:
        """Add a request."""
        name = self._name(item)
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = self._make_queue()
            self._clock.join(name)
        queue.add(item)
        self._count(1, item.tokens)

    def serve(self) -> Q:
        """Take out the first request, of a queue that has one, at the cost of its name."""
        name = self._clock.first
        if name is None:
            raise LookupError("the queue is empty")
        queue = self._queues[name]
        item = queue.serve()
        self._count(-1, -item.tokens)
        self._clock.serve(item.tokens, is_last=not queue)
        if not queue:
            del self._queues[name]
        return item

    def remove(self, item: Q) -> None:
        """Take out a request, wherever it stands, at no cost."""
        name = self._name(item)
        queue = self._queues[name]
        queue.remove(item)
        self._count(-1, -item.tokens)
        if not queue:
            del self._queues[name]
            self._clock.withdraw(name)

    def ahead(self, item: Q) -> Backlog:
        """About what would be served before `item`, which need not be in the queue yet."""
        name = self._name(item)
        own = self._queues.get(name)
        requests, tokens = own.ahead(item) if own else Backlog(0, 0.0)
        start = self._clock.time_of(name) + tokens
        for other, queue in self._queues.items():
            lead = start - self._clock.time_of(other)
            if queue is not own and lead >= 0:
                each = queue.tokens / len(queue)
                before = min(len(queue), 1 + int(lead / each))
                requests, tokens = requests + before, tokens + before * each
        return Backlog(requests, tokens)

    def _count(self, requests: int, tokens: float) -> None:
        self._length += requests
        self.tokens += tokens


class FairQueue(FairShareQueue[Q]):
    """Queue that is fair among addresses, and then among the keys of an address."""

    def __init__(self) -> None:
        super().__init__(_address, lambda: FairShareQueue(_key, UrgencyQueue))


def _address(item: QueueItem) -> bytes:
    return item.tenant.owner


def _key(item: QueueItem) -> bytes:
    return item.tenant.key
