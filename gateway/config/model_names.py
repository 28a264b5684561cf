"""Where a request for a name goes: aliases, splits and fallbacks, worked out.

Method for splits: weighted rendezvous hashing. Each model of a split scores every key with
`-ln(u) / weight`, where u in (0, 1] is the xxh3 hash of the key, seeded by split and model; the
lowest score wins. A model wins with the probability of its share, in every router and after every
restart alike. When a weight changes only the keys move that must: towards a model that has gained
or away from one that has lost, never between two others, as they would with intervals laid end to
end. Different splits, and what is copied to a shadow, are drawn independently of each other.
Cost: O(1) where no split is involved, otherwise O(names passed + their models).
Source: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005.
"""

import math
from graphlib import TopologicalSorter
from typing import Literal

import msgspec
import xxhash

from gateway.config.gateway import GatewayConfig
from gateway.config.naming import Split

HASHES = 2.0**64
DIGITS = 9
"""Of a share that is shown."""


class ModelRoute(msgspec.Struct, frozen=True):
    """Where a request goes."""

    models: tuple[str, ...]
    """The models and adapters that may answer, first choice first, each of them once."""
    shadow: str | None = None
    """What gets a copy of this request, if anything."""


class ListedName(msgspec.Struct, frozen=True):
    """A name that stands for models."""

    name: str
    kind: Literal["alias", "split"]
    shares: dict[str, float]
    """Of each model or adapter that it stands for, the share of its requests; together 1."""


class ModelNames:
    """Those of one gateway config."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._splits = {name: _Draw(name, split) for name, split in config.splits.items()}
        self._fixed: dict[str, ModelRoute] = {}
        self._drawn: set[str] = set()
        for name in {**config.targets, **config.fallbacks}:
            route, passed = self._walk(name, b"")
            if passed & self._splits.keys():
                self._drawn.add(name)
            else:
                self._fixed[name] = route

    def route(self, name: str, key: bytes) -> ModelRoute:
        """Where a request for `name` goes.

        Requests with the same `key` (a session, a user) go to the same models. A name that the
        config does not speak of stands for itself.
        """
        if fixed := self._fixed.get(name):
            return fixed
        return self._walk(name, key)[0] if name in self._drawn else ModelRoute((name,))

    def is_drawn(self, name: str) -> bool:
        """Whether it depends on the key where a request for `name` goes."""
        return name in self._drawn

    @property
    def listed(self) -> tuple[ListedName, ...]:
        """The aliases and then the splits, in the config's order."""
        shares = self._shares()
        return (
            *(ListedName(name, "alias", shares[name]) for name in self._config.aliases),
            *(ListedName(name, "split", shares[name]) for name in self._config.splits),
        )

    def _walk(self, name: str, key: bytes) -> tuple[ModelRoute, set[str]]:
        """The course, and all names on the way: what one stands for comes before its fallbacks."""
        models: list[str] = []
        shadow: str | None = None
        passed: set[str] = set()
        todo = [name]
        while todo:
            each = todo.pop()
            if each in passed:
                continue
            passed.add(each)
            if not (models or shadow) and (split := self._splits.get(each)):
                shadow = split.copy(key)
            todo.extend(reversed(self._config.fallbacks.get(each, ())))
            if target := self._target(each, key):
                todo.append(target)
            else:
                models.append(each)
        return ModelRoute(tuple(models), shadow and self._end(shadow, key)), passed

    def _target(self, name: str, key: bytes) -> str | None:
        """What a name stands for; None if only for itself."""
        if split := self._splits.get(name):
            return split.model(key)
        return self._config.aliases.get(name)

    def _end(self, name: str, key: bytes) -> str:
        while target := self._target(name, key):
            name = target
        return name

    def _shares(self) -> dict[str, dict[str, float]]:
        shares: dict[str, dict[str, float]] = {}
        for name in TopologicalSorter(self._config.targets).static_order():
            split = self._config.splits.get(name)
            target = self._config.aliases.get(name)
            parts = split.shares if split else {target: 1.0} if target else {}
            mine = shares[name] = {} if parts else {name: 1.0}
            for part, share in parts.items():
                for model, inner in shares[part].items():
                    mine[model] = round(mine.get(model, 0.0) + share * inner, DIGITS)
        return shares


class _Draw:
    """Which of a split's models a key goes to, and whether it is copied."""

    def __init__(self, name: str, split: Split) -> None:
        self._arms = [(m, weight, _seed("model", name, m)) for m, weight in split.models.items()]
        self._shadow = split.shadow
        self._shadow_seed = _seed("shadow", name)

    def model(self, key: bytes) -> str:
        """The one that the key goes to."""
        scores = ((-math.log(_uniform(key, seed)) / weight, m) for m, weight, seed in self._arms)
        return min(scores)[1]

    def copy(self, key: bytes) -> str | None:
        """What the key's requests are copied to, if anything."""
        shadow = self._shadow
        if shadow and _uniform(key, self._shadow_seed) < shadow.fraction:
            return shadow.model
        return None


def _seed(*parts: str) -> int:
    # No name holds a control character.
    return xxhash.xxh3_64_intdigest("\0".join(parts).encode())


def _uniform(key: bytes, seed: int) -> float:
    """A number in (0, 1] that is the key's own under that seed."""
    return (xxhash.xxh3_64_intdigest(key, seed=seed) | 1) / HASHES
