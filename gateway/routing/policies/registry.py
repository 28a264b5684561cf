"""All routing policies, by the names that configurations use."""

import random
from collections.abc import Callable, Mapping

from gateway.routing.policies.baselines import LeastPending, RoundRobin
from gateway.routing.policies.cache_aware import CacheAware
from gateway.routing.policies.marginal import Marginal
from gateway.routing.policies.policy import RoutingPolicy
from gateway.routing.policies.prefix_affinity import PrefixAffinity

POLICIES: Mapping[str, Callable[[random.Random], RoutingPolicy]] = {
    "marginal": Marginal,
    "least-pending": LeastPending,
    "round-robin": lambda rng: RoundRobin(),
    "prefix-affinity": PrefixAffinity,
    "cache-aware": lambda rng: CacheAware(),
}


def make_policy(name: str, rng: random.Random) -> RoutingPolicy:
    """A new policy; `name` must be one of `POLICIES`."""
    return POLICIES[name](rng)
