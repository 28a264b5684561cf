"""The fair queue, against one that is fair by plain arithmetic."""

import itertools
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.fair_queue import FairQueue, FairShareQueue, UrgencyQueue
from gateway.admission.indexed_heap import SLACK
from gateway.admission.queue_item import QueueItem
from gateway.admission.virtual_clock import MAX_GONE
from gateway.request.tenant import Tenant

A, B, C = Tenant(b"a"), Tenant(b"b"), Tenant(b"c")
A2 = Tenant(b"a", b"2")
TENANTS = st.sampled_from([A, A2, Tenant(b"a", b"3"), B, C])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "serve", "remove"]),
        TENANTS,
        st.integers(1, 9),
        st.integers(0, 5),
    ),
    max_size=60,
)
LEVELS = len(Tenant._fields)


class Plain:
    """The same order, found by looking at everybody each time; nothing is ever forgotten."""

    def __init__(self, level: int = 0) -> None:
        self.level = level
        self.waiting: list[QueueItem] = []
        self.time = 0.0
        self.stands: dict[bytes, tuple[float, int]] = {}
        """Each waiting name's virtual time, and since when."""
        self.gone: dict[bytes, float] = {}
        """Where those had come to that do not wait."""
        self.inner: dict[bytes, Plain] = {}
        self.count = itertools.count()

    def add(self, place: QueueItem) -> None:
        """One more waits."""
        self.waiting.append(place)
        if self.level == LEVELS:
            return
        name = place.tenant[self.level]
        if name not in self.stands:
            self.stands[name] = max(self.time, self.gone.get(name, 0.0)), next(self.count)
            self.inner[name] = Plain(self.level + 1)
        self.inner[name].add(place)

    def serve(self) -> QueueItem:
        """Take out who is next."""
        if self.level == LEVELS:
            place = min(self.waiting, key=lambda waits: waits.rank)
            self.waiting.remove(place)
            return place
        name = min(self.stands, key=self.stands.__getitem__)
        self.time = self.stands[name][0]
        place = self.inner[name].serve()
        self.stands[name] = self.time + place.tokens, next(self.count)
        self._take(place, name)
        return place

    def remove(self, place: QueueItem) -> None:
        """Take out one."""
        if self.level == LEVELS:
            self.waiting.remove(place)
            return
        name = place.tenant[self.level]
        self.inner[name].remove(place)
        self._take(place, name)

    def _take(self, place: QueueItem, name: bytes) -> None:
        self.waiting.remove(place)
        if not self.inner[name].waiting:
            self.gone[name] = self.stands.pop(name)[0]
        if not self.waiting:
            self.gone = {}


@given(STEPS)
def test_the_order_is_that_of_the_plain_queue(steps: list[tuple[str, Tenant, int, int]]) -> None:
    """The same requests are served, whichever are added and removed."""
    queue, plain = FairQueue[QueueItem](), Plain()
    for number, (kind, tenant, tokens, due) in enumerate(steps):
        if kind == "add":
            place = QueueItem(tenant, tokens, due, number)
            queue.add(place)
            plain.add(place)
        elif kind == "serve" and plain.waiting:
            assert queue.serve() is plain.serve()
        elif plain.waiting:
            place = plain.waiting[tokens % len(plain.waiting)]
            queue.remove(place)
            plain.remove(place)
        assert len(queue) == len(plain.waiting)
        assert queue.tokens == sum(waits.tokens for waits in plain.waiting)
    rest = [queue.serve() for _ in range(len(queue))]
    assert rest == [plain.serve() for _ in range(len(plain.waiting))]
    assert queue.first is None


@pytest.mark.parametrize("pair", [(A, B), (A, A2)])
@given(st.lists(st.integers(1, 9), min_size=2, max_size=80), STEPS, st.integers(1, 5))
def test_tenants_that_always_wait_are_served_the_same(
    pair: tuple[Tenant, Tenant],
    costs: list[int],
    steps: list[tuple[str, Tenant, int, int]],
    backlog: int,
) -> None:
    """A third tenant does not matter, nor that one has only one request queued at a time."""
    queue, numbers, served = FairQueue[QueueItem](), itertools.count(), dict.fromkeys(pair, 0.0)
    others: list[QueueItem] = []
    for tenant, count in zip(pair, (1, backlog), strict=True):
        for cost in costs[:count]:
            queue.add(QueueItem(tenant, cost, 0.0, next(numbers)))
    for cost, (kind, tenant, tokens, due) in zip(costs, steps, strict=False):
        if tenant not in pair and kind == "add":
            others.append(QueueItem(tenant, tokens, due, next(numbers)))
            queue.add(others[-1])
        elif others and kind == "remove":
            queue.remove(others.pop())
        place = queue.serve()
        if place in others:
            others.remove(place)
        else:
            served[place.tenant] += place.tokens
            queue.add(QueueItem(place.tenant, cost, 0.0, next(numbers)))
        assert abs(served[pair[0]] - served[pair[1]]) <= 2 * 9


@pytest.mark.parametrize("other", [B, A2])
def test_a_tenant_with_one_request_at_a_time_gets_no_more_than_a_backlog(other: Tenant) -> None:
    """A tenant with nothing queued for a moment keeps its virtual time."""
    queue, numbers = FairQueue[QueueItem](), itertools.count()
    for tenant in [other] * 400 + [A]:
        queue.add(QueueItem(tenant, 1.0, 0.0, next(numbers)))
    served = []
    for _ in range(300):
        served.append(queue.serve().tenant)
        if served[-1] == A:
            queue.add(QueueItem(A, 1.0, 0.0, next(numbers)))
    assert served.count(A) == pytest.approx(150, abs=1)


@pytest.mark.parametrize("other", [B, A2])
def test_the_number_of_queued_requests_does_not_change_a_share(other: Tenant) -> None:
    """One keeps as many requests in flight as there are slots, the other more: each gets half."""
    queue, numbers = FairQueue[QueueItem](), itertools.count()
    running = deque(QueueItem(A, 1.0, 0.0, next(numbers)) for _ in range(16))
    for _ in range(50):
        queue.add(QueueItem(other, 1.0, 0.0, next(numbers)))
    served = []
    for _ in range(5000):
        ended = running.popleft()
        served.append(ended.tenant)
        running.append(queue.serve())
        queue.add(QueueItem(ended.tenant, 1.0, 0.0, next(numbers)))
    assert served.count(A) == pytest.approx(2500, abs=40)


@pytest.mark.parametrize("is_key", [True, False])
def test_invented_names_delay_others_only_so_long(is_key: bool) -> None:
    """If each request has a new name, the others are still served, and memory is bounded."""
    queue = FairQueue[QueueItem]()
    for number in range(20):
        queue.add(QueueItem(A, 1.0, 0.0, number))
    for number in range(20, 1000):
        name = b"%d" % number
        queue.add(QueueItem(Tenant(b"a", name) if is_key else Tenant(name), 1.0, 0.0, number))
        queue.serve()
    own = queue._queues[b"a"]
    assert isinstance(own, FairShareQueue)
    assert len(own._queues[b""]) <= 20 - 980 // (MAX_GONE + 2)
    turns = own._clock if is_key else queue._clock
    assert len(turns._gone) <= MAX_GONE


def test_invented_keys_share_one_address() -> None:
    """An address gets no more than another one, however many keys it uses."""
    queue = FairQueue[QueueItem]()
    for number in range(100):
        queue.add(QueueItem(B, 1.0, 0.0, number))
        queue.add(QueueItem(Tenant(b"a", b"%d" % number), 1.0, 0.0, 100 + number))
    served = [queue.serve().tenant for _ in range(100)]
    assert served.count(B) == 50


@given(st.lists(st.tuples(TENANTS, st.integers(0, 5)), min_size=1, max_size=40), st.data())
def test_the_estimate_of_requests_ahead_is_about_right(
    queued: list[tuple[Tenant, int]], data: st.DataObject
) -> None:
    """It is off by at most one for each other key or address, if all requests cost the same."""
    queue = FairQueue[QueueItem]()
    for number, (tenant, due) in enumerate(queued):
        queue.add(QueueItem(tenant, 4.0, float(due), number))
    newcomer = QueueItem(data.draw(TENANTS), 4.0, float(data.draw(st.integers(0, 5))), len(queued))
    told = queue.ahead(newcomer).requests
    queue.add(newcomer)
    told_of_queued = queue.ahead(newcomer).requests
    ahead = list(iter(queue.serve, newcomer))
    assert abs(told - len(ahead)) <= 4
    assert abs(told_of_queued - len(ahead)) <= 4


@pytest.mark.parametrize(
    ("places", "order"),
    [
        ([("a", 1, 3.0), ("a", 1, 1.0), ("a", 1, 2.0)], [1, 2, 0]),  # by due time
        ([("a", 1, 1.0), ("a", 1, 1.0)], [0, 1]),  # who came first
        ([("a", 1, 0.0)] * 3 + [("b", 1, 9.0)], [0, 3, 1, 2]),  # one by one
        ([("a", 6, 0.0)] * 3 + [("b", 2, 0.0)] * 4, [0, 3, 4, 5, 1, 6, 2]),  # by tokens
        ([("a1", 1, 0.0)] * 2 + [("a2", 1, 0.0), ("b", 1, 0.0)], [0, 3, 2, 1]),  # key by key
    ],
)
def test_requests_are_ordered_by_turn_and_urgency(
    places: list[tuple[str, float, float]], order: list[int]
) -> None:
    """Within a tenant by due time, among tenants by the tokens that they were served."""
    queue = FairQueue[QueueItem]()
    for number, (name, tokens, priority_s) in enumerate(places):
        tenant = Tenant(name[:1].encode(), name[1:].encode())
        queue.add(QueueItem(tenant, tokens, priority_s, number))
    assert [queue.serve().number for _ in places] == order


def test_a_tenant_that_comes_back_has_no_credit() -> None:
    """Having been away it is served in turn, not until it has caught up."""
    queue = FairQueue[QueueItem]()
    queue.add(QueueItem(A, 1.0, 0.0, 0))
    for number in range(1, 30):
        queue.add(QueueItem(B, 1.0, float(number), number))
    for _ in range(11):
        queue.serve()
    for number in range(30, 33):
        queue.add(QueueItem(A, 1.0, 0.0, number))
    following = [queue.serve().tenant for _ in range(6)]
    assert following.count(A) == 3
    assert following[:2] != [A, A]


@pytest.mark.parametrize("count", [1, 2])
def test_removed_requests_leave_no_garbage(count: int) -> None:
    """Removed requests are swept away, at the latest when they are the larger part."""
    queue = FairQueue[QueueItem]()
    for number in range(1000 * count):
        place = QueueItem(A, 1.0, float(number), number)
        queue.add(place)
        if number % count == 0:
            queue.remove(place)
    queue.add(QueueItem(A, 1.0, -1.0, 9999))
    own = queue._queues[b"a"]
    assert isinstance(own, FairShareQueue)
    queued = own._queues[b""]
    assert isinstance(queued, UrgencyQueue)
    assert len(queued._items._heap) <= 2 * len(queue) + SLACK
