"""All routing policies, by the names that configurations use."""

import random
from collections.abc import Callable, Mapping

from gateway.routing.cache_aware import CacheAware
from gateway.routing.marginal import Marginal
from gateway.routing.policy import Policy
from gateway.routing.prefix_affinity import PrefixAffinity
from gateway.routing.simple import LeastPending, RoundRobin

POLICIES: Mapping[str, Callable[[random.Random], Policy]] = {
    "marginal": Marginal,
    "least-pending": LeastPending,
    "round-robin": lambda rng: RoundRobin(),
    "prefix-affinity": PrefixAffinity,
    "cache-aware": lambda rng: CacheAware(),
}


def make_policy(name: str, rng: random.Random) -> Policy:
    """A new policy; `name` must be one of `POLICIES`."""
    return POLICIES[name](rng)
