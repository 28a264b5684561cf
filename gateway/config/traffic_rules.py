"""Rules that lead names to models: aliases, splits and fallbacks, and how they may conflict."""

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from gateway.config.serving_options import ModelName
from gateway.config.strict import FieldError, Strict

FallbackChain = Annotated[list[ModelName], Field(min_length=1)]
Weight = Annotated[float, Field(gt=0)]


class Shadow(Strict):
    """A model that receives copies of requests; its answers are measured and dropped."""

    model: ModelName
    """The model that receives the copies; must not be one of the split's own `models`."""
    fraction: float = Field(gt=0, le=1)
    """Share of requests that are copied; always those of the same sessions and users."""


class Split(Strict):
    """A name whose requests are divided between models: a canary, or an A/B test.

    A session stays with its model; so does a user, if requests name no session. When weights
    change, as few sessions as possible change their model.
    """

    models: dict[ModelName, Weight] = Field(min_length=1)
    """Models and their weights: any positive numbers, such as percentages. A name may be that of a
    model, an adapter, an alias or another split."""
    shadow: Shadow | None = None
    """A model that receives copies of some of the requests."""

    @property
    def shares(self) -> dict[str, float]:
        """Share of each model; together 1."""
        largest = max(self.models.values())  # avoids overflow: weights may be huge
        total = sum(weight / largest for weight in self.models.values())
        return {m: round(weight / largest / total, 9) for m, weight in self.models.items()}


class TrafficRules(Strict):
    """Rules that lead the names that clients ask for to models."""

    aliases: dict[ModelName, ModelName] = Field(default_factory=dict)
    """Names and what they stand for: a model, an adapter, a split or another alias."""
    splits: dict[ModelName, Split] = Field(default_factory=dict)
    """Names whose requests are divided between models."""
    fallbacks: dict[ModelName, FallbackChain] = Field(default_factory=dict)
    """Names to try in order when a model, adapter, alias or split cannot answer. Chains are
    followed to their end: with `{a: [b, d], b: [c]}`, requests for `a` try a, b, c and d, in this
    order. An alias or a split tries what it stands for, with its fallbacks, and then its own."""

    @property
    def targets(self) -> dict[str, tuple[str, ...]]:
        """Direct targets of each alias and split."""
        return {
            **{name: (target,) for name, target in self.aliases.items()},
            **{name: tuple(split.models) for name, split in self.splits.items()},
        }

    def has_fallback(self, model: str) -> bool:
        """Whether requests for `model`, by any of its names, have a fallback."""
        targets = self.targets
        return any(model in _resolve(name, targets) for name in self.fallbacks)

    def contradictions(self) -> Iterator[FieldError]:
        """Find the mistakes that do not depend on which models there are."""
        for name in (name for name in self.splits if name in self.aliases):
            yield FieldError(("splits", name), "is also an alias")
        targets = self.targets
        cycles = list(_cycles(targets))
        for cycle in cycles:
            kind = "aliases" if cycle[0] in self.aliases else "splits"
            yield FieldError((kind, cycle[0]), f"resolves to itself: {_arrows(cycle)}")
        for name, split in self.splits.items():
            if not split.shadow:
                continue
            if both := _resolve(name, targets) & _resolve(split.shadow.model, targets):
                path = ("splits", name, "shadow", "model")
                message = f"the split itself sends requests to {_list(both)}"
                yield FieldError(path, message)
        for name, chain in self.fallbacks.items():
            yield from self._repeated_fallbacks(name, chain)
        if not cycles:
            yield from self._fallback_cycles(targets)

    def _repeated_fallbacks(self, name: str, chain: Sequence[str]) -> Iterator[FieldError]:
        """Find fallbacks with the same target as an earlier one, or as the alias itself."""
        first = {self._alias_target(name): name} if name in self.aliases else {}
        for i, each in enumerate(chain):
            earlier = first.setdefault(self._alias_target(each), each)
            if earlier == each in chain[:i]:
                yield FieldError(("fallbacks", name, i), f"`{each}` appears twice")
            elif earlier != each:
                yield FieldError(("fallbacks", name, i), f"`{each}` is the same as `{earlier}`")

    def _fallback_cycles(self, targets: Mapping[str, Sequence[str]]) -> Iterator[FieldError]:
        names = {**targets, **self.fallbacks}
        graph = {name: (*targets.get(name, ()), *self.fallbacks.get(name, ())) for name in names}
        for cycle in _cycles(graph):
            # Aliases and splits alone form no cycle here, so a fallback is part of it.
            at, name, following = next(
                (i, *pair)
                for i, pair in enumerate(pairwise(cycle))
                if pair[1] not in targets.get(pair[0], ())
            )
            arrows = _arrows([*cycle[at:-1], *cycle[: at + 1]])
            position = self.fallbacks[name].index(following)
            message = f"`{name}` would fall back to itself: {arrows}"
            yield FieldError(("fallbacks", name, position), message)

    def _alias_target(self, name: str) -> str:
        """End of a chain of aliases."""
        seen = set()
        while name in self.aliases and name not in seen:
            seen.add(name)
            name = self.aliases[name]
        return name


def _cycles(graph: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Find cycles, from a name back to itself, and remove each until none is left."""
    remaining = {name: list(dict.fromkeys(following)) for name, following in graph.items()}
    order = {name: i for i, name in enumerate(graph)}
    while True:
        try:
            TopologicalSorter(remaining).prepare()
        except CycleError as error:
            # The sorter takes edges as predecessors, so its cycle runs backwards.
            nodes: list[str] = error.args[1][:0:-1]
            start = nodes.index(min(nodes, key=order.__getitem__))
            cycle = [*nodes[start:], *nodes[: start + 1]]
            yield cycle
            remaining[cycle[-2]].remove(cycle[-1])
        else:
            return


def _resolve(name: str, targets: Mapping[str, Sequence[str]]) -> set[str]:
    """All models and adapters that a name leads to through aliases and splits."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        each = todo.pop()
        if each not in seen:
            seen.add(each)
            todo.extend(targets.get(each, ()))
    return {each for each in seen if each not in targets}


def _arrows(names: Sequence[str]) -> str:
    return " -> ".join(names)


def _list(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
