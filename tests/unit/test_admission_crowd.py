"""Who has to go when too many wait."""

import pytest

from gateway.admission.crowd import Crowd
from gateway.admission.fair_queue import Place


def place(word: str, number: int = 0) -> Place:
    """A request of the tenant that `word` begins with; batch, if it ends with a `~`."""
    return Place(word[:1].encode(), 1.0, 0.0, number, is_batch=word.endswith("~"))


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
    ],
)
def test_who_goes(waiting: str, newcomer: str, victim: int | None) -> None:
    """The larger share pays, and batch before all others."""
    crowd = Crowd[Place]()
    places = [place(word, number) for number, word in enumerate(waiting.split())]
    for waits in places:
        crowd.add(waits)
    found = crowd.victim(place(newcomer, 99))
    assert (found and found.number) == victim


def test_a_share_is_what_it_weighs() -> None:
    """One large body goes before many small ones; what goes weighs no more."""
    crowd = Crowd[Place]()
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
