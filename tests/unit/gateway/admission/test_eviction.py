"""Who has to go when too many wait."""

import pytest

from gateway.admission.eviction import EvictionIndex
from gateway.admission.queue_item import QueueItem
from gateway.request.tenant import Tenant


def place(word: str, number: int = 0) -> QueueItem:
    """A request of the address and key that `word` begins with; batch, if it ends with a `~`."""
    address, key = word[:1].encode(), word[1:2].strip("~").encode()
    return QueueItem(Tenant(address, key), 1.0, 0.0, number, is_batch=word.endswith("~"))


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
def test_who_goes(waiting: str, newcomer: str, victim: int | None) -> None:
    """The larger share pays, and batch before all others."""
    crowd = EvictionIndex[QueueItem]()
    places = [place(word, number) for number, word in enumerate(waiting.split())]
    for waits in places:
        crowd.add(waits)
    found = crowd.victim(place(newcomer, 99))
    assert (found and found.number) == victim


def test_it_is_known_who_waits() -> None:
    """By address, key and priority, as long as it waits."""
    crowd = EvictionIndex[QueueItem]()
    interactive, batch = place("a1", 1), place("a2~", 2)
    crowd.add(interactive)
    crowd.add(batch, 5)
    assert [crowd.weight_of(is_batch=is_batch) for is_batch in (False, True)] == [1, 5]
    assert crowd.has(Tenant(b"a", b"1"), is_batch=False)
    assert not crowd.has(Tenant(b"a", b"2"), is_batch=False)
    assert not crowd.has(Tenant(b"b", b"1"), is_batch=False)
    crowd.remove(interactive)
    assert not crowd.has(Tenant(b"a", b"1"), is_batch=False)
    assert crowd.weight == 5


def test_a_share_is_what_it_weighs() -> None:
    """One large body goes before many small ones; what goes weighs no more."""
    crowd = EvictionIndex[QueueItem]()
    large, small, other = place("a", 1), place("b", 2), place("b", 3)
    crowd.add(large, 100)
    crowd.add(small, 10)
    crowd.add(other, 10)

    heaviest = crowd.victim(place("c"), 30)
    crowd.remove(large)

    assert heaviest is large
    assert crowd.weight == 20
    assert crowd.victim(place("c"), 30) is None
    assert crowd.victim(place("c"), 20) is other
