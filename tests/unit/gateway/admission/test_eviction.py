"""The eviction index: which request is rejected when too many wait."""

from typing import Any

import pytest

from gateway.admission.eviction import EvictionIndex
from gateway.admission.queue_item import QueueItem
from gateway.request.tenant import Tenant


class Waiter(QueueItem):
    """A waiting request that notes why it was rejected."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.index: EvictionIndex[Waiter] | None = None
        self.reason = ""

    def reject(self, reason: str) -> None:
        """Leave the index, as the protocol asks."""
        self.reason = reason
        if self.index is not None:
            self.index.remove(self)


def place(word: str, number: int = 0) -> Waiter:
    """A request of the address and key that `word` begins with; batch, if it ends with a `~`."""
    address, key = word[:1].encode(), word[1:2].strip("~").encode()
    return Waiter(Tenant(address, key), 1.0, 0.0, number, is_batch=word.endswith("~"))


@pytest.mark.parametrize(
    ("waiting", "newcomer", "victim"),
    [
        ("a a a b", "b", 2),  # the newest of who has the most
        ("a a a b", "c", 2),
        ("a a b", "a", None),  # the newcomer's own tenant has the most
        ("a a b b", "a", None),
        ("a a b b", "c", 1),
        ("a b c", "d", 0),  # a tenant with nothing goes before one with something
        ("a a a b~", "a", 3),  # batch first, whoever sends it
        ("a~ b~ b~ a", "a", 2),
        ("a a a", "b~", None),  # batch drives nobody out but batch
        ("a a a b~ b~", "a~", 4),
        ("a a a b~", "a~", 3),
        ("b~ b~", "b~", None),
        ("", "a", None),
        ("a1 a2 a3 b b", "b", 0),  # the address with the most, whatever its keys
        ("a1 a2 a3 b b", "a4", 0),  # whose newcomer drives out its own
        ("a1 a1 a2 b b", "a2", 1),  # of the key with the most
        ("a1 a1 a2 b b", "a1", None),
        ("a1 a1 b b b", "a3", 4),
        ("a1 a1~ a2~ a2~ b~ b~", "a1", 3),
    ],
)
def test_the_newest_of_the_largest_share_is_rejected(
    waiting: str, newcomer: str, victim: int | None
) -> None:
    """The larger share pays, and batch before all others."""
    index = EvictionIndex[Waiter]()
    places = [place(word, number) for number, word in enumerate(waiting.split())]
    for waits in places:
        index.add(waits)
    found = index.victim(place(newcomer, 99))
    assert (found and found.number) == victim


def test_waiting_requests_are_found_by_tenant_and_priority() -> None:
    """By address, key and priority, as long as it waits."""
    index = EvictionIndex[Waiter]()
    interactive, batch = place("a1", 1), place("a2~", 2)
    index.add(interactive)
    index.add(batch, 5)
    assert [index.weight_of(is_batch=is_batch) for is_batch in (False, True)] == [1, 5]
    assert index.has(Tenant(b"a", b"1"), is_batch=False)
    assert not index.has(Tenant(b"a", b"2"), is_batch=False)
    assert not index.has(Tenant(b"b", b"1"), is_batch=False)
    index.remove(interactive)
    assert not index.has(Tenant(b"a", b"1"), is_batch=False)
    assert index.weight == 5


def test_a_share_is_measured_by_weight() -> None:
    """One large body is rejected before many small ones, and then no longer counts."""
    index = EvictionIndex[Waiter]()
    large, small, other = place("a", 1), place("b", 2), place("b", 3)
    index.add(large, 100)
    index.add(small, 10)
    index.add(other, 10)

    heaviest = index.victim(place("c"), 30)
    index.remove(large)

    assert heaviest is large
    assert index.weight == 20
    assert index.victim(place("c"), 30) is None
    assert index.victim(place("c"), 20) is other


@pytest.mark.parametrize(("limit", "fits", "rejected"), [(5, True, 0), (3, True, 2), (1, False, 3)])
def test_requests_are_rejected_until_a_newcomer_fits(limit: int, fits: bool, rejected: int) -> None:
    """Only as many as necessary are rejected, all for one reason, or else the newcomer is."""
    index = EvictionIndex[Waiter]()
    waiting = [place("a", number) for number in range(4)]
    for request in waiting:
        index.add(request)
        request.index = index

    assert index.make_room(place("b", 9), 1 if fits else 2, limit, "too many") is fits
    assert [request.reason for request in waiting].count("too many") == rejected
    assert index.weight == 4 - rejected
