"""Who of those that wait is served next, against a queue that is fair by plain arithmetic."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.fair_queue import FairQueue, Place

TENANTS = st.sampled_from([b"a", b"b", b"c"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "serve", "remove"]),
        TENANTS,
        st.integers(1, 9),
        st.integers(0, 5),
    ),
    max_size=60,
)


class Plain:
    """The same order, found by looking at everybody each time."""

    def __init__(self) -> None:
        self.waiting: list[Place] = []
        self.time = 0.0
        self.stands: dict[bytes, tuple[float, int]] = {}
        """Each waiting tenant's virtual time, and since when."""
        self.count = itertools.count()

    def add(self, place: Place) -> None:
        """One more waits."""
        if place.tenant not in self.stands:
            self.stands[place.tenant] = self.time, next(self.count)
        self.waiting.append(place)

    def serve(self) -> Place:
        """Take out who is next."""
        place = min(self.waiting, key=lambda p: (self.stands[p.tenant], p.due_s, p.number))
        self.time = self.stands[place.tenant][0]
        self.stands[place.tenant] = self.time + place.tokens, next(self.count)
        self.remove(place)
        return place

    def remove(self, place: Place) -> None:
        """Take out one."""
        self.waiting.remove(place)
        if all(other.tenant != place.tenant for other in self.waiting):
            del self.stands[place.tenant]


@given(STEPS)
def test_the_order_is_that_of_the_plain_queue(steps: list[tuple[str, bytes, int, int]]) -> None:
    """Whatever comes and goes, the same ones are served, and nothing is kept of who has gone."""
    queue, plain = FairQueue[Place](), Plain()
    for number, (kind, tenant, tokens, due) in enumerate(steps):
        if kind == "add":
            place = Place(tenant, tokens, due, number)
            queue.add(place)
            plain.add(place)
        elif kind == "serve" and plain.waiting:
            assert queue.serve() is plain.serve()
        elif plain.waiting:
            place = plain.waiting[tokens % len(plain.waiting)]
            queue.remove(place)
            plain.remove(place)
        assert len(queue) == len(plain.waiting)
        assert queue._shares.keys() == plain.stands.keys()
    rest = [queue.serve() for _ in range(len(queue))]
    assert rest == [plain.serve() for _ in range(len(plain.waiting))]
    assert queue.first is None


@given(st.lists(st.tuples(TENANTS, st.integers(1, 9)), min_size=1, max_size=60))
def test_tenants_that_wait_are_served_the_same_tokens(queued: list[tuple[bytes, int]]) -> None:
    """While two have something queued, they are never further apart than a request of each."""
    queue = FairQueue[Place]()
    for number, (tenant, tokens) in enumerate(queued):
        queue.add(Place(tenant, tokens, 0.0, number))
    served = dict.fromkeys(queue._shares, 0.0)
    while len(queue._shares) == len(served):
        assert max(served.values()) - min(served.values()) <= 2 * 9
        place = queue.serve()
        served[place.tenant] += place.tokens


@given(st.lists(st.tuples(TENANTS, st.integers(0, 5)), min_size=1, max_size=40), st.data())
def test_how_many_are_ahead_is_told_about_right(
    queued: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    """Up to one of each other tenant, where all requests cost the same."""
    queue = FairQueue[Place]()
    for number, (tenant, due) in enumerate(queued):
        queue.add(Place(tenant, 4.0, float(due), number))
    newcomer = Place(data.draw(TENANTS), 4.0, float(data.draw(st.integers(0, 5))), len(queued))
    told = queue.ahead(newcomer)
    queue.add(newcomer)
    told_of_queued = queue.ahead(newcomer)
    ahead = list(iter(queue.serve, newcomer))
    assert abs(told - len(ahead)) <= 2
    assert abs(told_of_queued - len(ahead)) <= 2


@pytest.mark.parametrize(
    ("places", "order"),
    [
        ([("a", 1, 3.0), ("a", 1, 1.0), ("a", 1, 2.0)], [1, 2, 0]),  # by due time
        ([("a", 1, 1.0), ("a", 1, 1.0)], [0, 1]),  # who came first
        ([("a", 1, 0.0)] * 3 + [("b", 1, 9.0)], [0, 3, 1, 2]),  # one by one
        ([("a", 6, 0.0)] * 3 + [("b", 2, 0.0)] * 4, [0, 3, 4, 5, 1, 6, 2]),  # by tokens
    ],
)
def test_order(places: list[tuple[str, float, float]], order: list[int]) -> None:
    """Inside a tenant by due time, among tenants by what they have been served."""
    queue = FairQueue[Place]()
    for number, (tenant, tokens, due_s) in enumerate(places):
        queue.add(Place(tenant.encode(), tokens, due_s, number))
    assert [queue.serve().number for _ in places] == order


def test_a_tenant_that_comes_back_has_no_credit() -> None:
    """Having been away it is served in turn, not until it has caught up."""
    queue = FairQueue[Place]()
    queue.add(Place(b"idle", 1.0, 0.0, 0))
    for number in range(1, 30):
        queue.add(Place(b"busy", 1.0, float(number), number))
    for _ in range(11):
        queue.serve()
    for number in range(30, 33):
        queue.add(Place(b"idle", 1.0, 0.0, number))
    following = [queue.serve().tenant for _ in range(6)]
    assert following.count(b"idle") == 3
    assert following[:2] != [b"idle", b"idle"]
