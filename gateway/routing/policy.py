"""Which replica takes a request."""

import random
from collections.abc import Callable, Collection

from gateway.routing.fleet import Replica


class LeastInFlight:
    """The replica with the fewest of this router's requests; ties at random.

    A dead replica refuses at once and so never has a request in flight: one that could not be
    reached is left out for a while if there are others, lest it draw all requests to itself.
    """

    def __init__(self, rng: random.Random, now: Callable[[], float]) -> None:
        self._rng = rng
        self._now = now

    def choose(self, candidates: Collection[Replica]) -> Replica:
        """The chosen one; O(n). `candidates` must not be empty."""
        now_s = self._now()
        reachable = [r for r in candidates if r.shunned_until_s <= now_s] or candidates
        fewest = min(r.in_flight for r in reachable)
        return self._rng.choice([r for r in reachable if r.in_flight == fewest])
