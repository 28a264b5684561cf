"""Mutated requests."""

from itertools import islice

from conformance.mutations import RequestMutations
from gateway.config.route_paths import JSON_ROUTES


def test_a_seed_makes_the_same_requests() -> None:
    """A fault that was found can be found again."""
    one, other = RequestMutations(7), RequestMutations(7)

    assert list(islice(one, 50)) == list(islice(other, 50))


def test_all_kinds_of_routes_are_asked() -> None:
    """No route is named that the gateway has not."""
    paths = {request.path for request in islice(RequestMutations(1), 500)}

    assert paths <= set(JSON_ROUTES)
    assert len(paths) >= 10
