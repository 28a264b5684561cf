"""Registry of routing policies, each defined by the module of its name in `routing/policies`."""

import importlib
import random

from gateway.routing.policy import RoutingPolicy

PACKAGE = "gateway.routing.policies"


def make_policy(name: str, rng: random.Random) -> RoutingPolicy:
    """Make a policy; `name` is one of `gateway.config.policy_names`.

    Raises:
        LookupError: the module does not define exactly one class with that name.
    """
    return _policy_class(name)(rng)


def _policy_class(name: str) -> type[RoutingPolicy]:
    module = importlib.import_module(f"{PACKAGE}.{name.replace('-', '_')}")
    found: list[type[RoutingPolicy]] = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and getattr(each, "name", None) == name
    ]
    if len(found) != 1:
        raise LookupError(f"{module.__name__} defines {len(found)} classes with the name `{name}`")
    return found[0]
