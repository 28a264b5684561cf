"""Resolves the name in a request to models, by the config's aliases, splits and fallbacks.

Method for splits: weighted rendezvous hashing. Each model of a split scores every key with
`-ln(u) / weight`, where u in (0, 1] is the xxh3 hash of the key, seeded by split and model; the
lowest score wins. A model wins with the probability of its share, in every router and after every
restart. When a weight changes, only the necessary keys move: to a model that has gained or from
one that has lost, never between two others, as they would with adjacent intervals. Different
splits, and the copies to a shadow, are drawn independently of each other.
Cost: O(1) if no split is involved, otherwise O(visited names + their models).
Source: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005.
"""

import math
from graphlib import TopologicalSorter
from typing import Literal

import msgspec
import xxhash

from gateway.config.gateway import GatewayConfig
from gateway.config.traffic_rules import Split

HASH_VALUES = 2.0**64
SHARE_DIGITS = 9
KEPT_LISTS = 4096
"""Lists of names whose targets are remembered."""
_NO_MODELS: frozenset[str] = frozenset()


class ModelRoute(msgspec.Struct, frozen=True):
    """Destinations of a request."""

    models: tuple[str, ...]
    """Models and adapters that may answer, first choice first, without repetition."""
    shadow: str | None = None
    """Model that gets a copy of this request, if any."""


class ListedName(msgspec.Struct, frozen=True):
    """Alias or split, as listed to clients."""

    name: str
    kind: Literal["alias", "split"]
    shares: dict[str, float]
    """Share of its requests by model or adapter; together 1."""


class ModelNames:
    """Names of one gateway config, resolved to models."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._splits = {name: _SplitDraw(name, split) for name, split in config.splits.items()}
        self._fixed: dict[str, ModelRoute] = {}
        self._keyed: set[str] = set()
        """Names whose route depends on the request's key."""
        self._leads_to = {each.name: frozenset(each.shares) for each in self.listed}
        self._with_targets: dict[tuple[str, ...], frozenset[str]] = {}
        for name in {**config.targets, **config.fallbacks}:
            route, visited = self._resolve(name, b"")
            if visited & self._splits.keys():
                self._keyed.add(name)
            else:
                self._fixed[name] = route

    def route(self, name: str, key: bytes) -> ModelRoute:
        """Resolve a request's `name`.

        Requests with the same `key` (a session, a user) go to the same models. A name that the
        config does not mention resolves to itself.
        """
        if fixed := self._fixed.get(name):
            return fixed
        return self._resolve(name, key)[0] if name in self._keyed else ModelRoute((name,))

    def depends_on_key(self, name: str) -> bool:
        """Whether the route of `name` depends on the request's key."""
        return name in self._keyed

    def leads_to(self, name: str) -> frozenset[str]:
        """Models and adapters that an alias or a split stands for; none for any other name."""
        return self._leads_to.get(name, _NO_MODELS)

    def with_targets(self, names: tuple[str, ...]) -> frozenset[str]:
        """These names, and all that they lead to as aliases and splits."""
        found = self._with_targets.get(names)
        if found is None:
            if len(self._with_targets) >= KEPT_LISTS:
                self._with_targets.clear()
            found = self._with_targets[names] = frozenset(self._reached(names))
        return found

    def _reached(self, names: tuple[str, ...]) -> set[str]:
        seen: set[str] = set()
        todo, targets = list(names), self._config.targets
        while todo:
            each = todo.pop()
            if each not in seen:
                seen.add(each)
                todo.extend(targets.get(each, ()))
        return seen

    @property
    def listed(self) -> tuple[ListedName, ...]:
        """Aliases and then splits, in the config's order."""
        shares = self._shares()
        return (
            *(ListedName(name, "alias", shares[name]) for name in self._config.aliases),
            *(ListedName(name, "split", shares[name]) for name in self._config.splits),
        )

    def _resolve(self, name: str, key: bytes) -> tuple[ModelRoute, set[str]]:
        """Route and all visited names; the target of a name comes before its fallbacks."""
        models: list[str] = []
        shadow: str | None = None
        visited: set[str] = set()
        todo = [name]
        while todo:
            each = todo.pop()
            if each in visited:
                continue
            visited.add(each)
            if not (models or shadow) and (split := self._splits.get(each)):
                shadow = split.shadow(key)
            todo.extend(reversed(self._config.fallbacks.get(each, ())))
            if target := self._next_target(each, key):
                todo.append(target)
            else:
                models.append(each)
        return ModelRoute(tuple(models), shadow and self._final_target(shadow, key)), visited

    def _next_target(self, name: str, key: bytes) -> str | None:
        """Direct target of an alias or split; None for any other name."""
        if split := self._splits.get(name):
            return split.model(key)
        return self._config.aliases.get(name)

    def _final_target(self, name: str, key: bytes) -> str:
        while target := self._next_target(name, key):
            name = target
        return name

    def _shares(self) -> dict[str, dict[str, float]]:
        shares: dict[str, dict[str, float]] = {}
        for name in TopologicalSorter(self._config.targets).static_order():
            split = self._config.splits.get(name)
            target = self._config.aliases.get(name)
            parts = split.shares if split else {target: 1.0} if target else {}
            totals = shares[name] = {} if parts else {name: 1.0}
            for part, share in parts.items():
                for model, inner in shares[part].items():
                    totals[model] = round(totals.get(model, 0.0) + share * inner, SHARE_DIGITS)
        return shares


class _SplitDraw:
    """Draws a split's model and its shadow for a key."""

    def __init__(self, name: str, split: Split) -> None:
        self._models = [(m, weight, _seed("model", name, m)) for m, weight in split.models.items()]
        self._shadow_rule = split.shadow
        self._shadow_seed = _seed("shadow", name)

    def model(self, key: bytes) -> str:
        """Model that the key goes to."""
        scores = ((-math.log(_uniform(key, seed)) / weight, m) for m, weight, seed in self._models)
        return min(scores)[1]

    def shadow(self, key: bytes) -> str | None:
        """Model that gets copies of the key's requests, if any."""
        shadow = self._shadow_rule
        if shadow and _uniform(key, self._shadow_seed) < shadow.fraction:
            return shadow.model
        return None


def _seed(*parts: str) -> int:
    # Names hold no control characters.
    return xxhash.xxh3_64_intdigest("\0".join(parts).encode())


def _uniform(key: bytes, seed: int) -> float:
    """Hash the key to a number in (0, 1] that is fixed for this seed."""
    return (xxhash.xxh3_64_intdigest(key, seed=seed) | 1) / HASH_VALUES
