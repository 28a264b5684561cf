"""Names that stand for models, and what is wrong with a set of them."""

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from gateway.config.serving_options import Name
from gateway.config.strict import Flaw, Strict

Chain = Annotated[list[Name], Field(min_length=1)]
Weight = Annotated[float, Field(gt=0)]


class Shadow(Strict):
    """A model that receives copies of requests; its answers are measured and dropped."""

    model: Name
    """The model that receives the copies; must not be one of the split's own `models`."""
    fraction: float = Field(gt=0, le=1)
    """Share of requests that are copied; always those of the same sessions and users."""


class Split(Strict):
    """A name whose requests are divided between models: a canary, or an A/B test.

    A session stays with its model; so does a user, if requests name no session. When weights
    change, as few sessions as possible change their model.
    """

    models: dict[Name, Weight] = Field(min_length=1)
    """Models and their weights: any positive numbers, such as percentages. A name may be that of a
    model, an adapter, an alias or another split."""
    shadow: Shadow | None = None
    """A model that receives copies of some of the requests."""

    @property
    def shares(self) -> dict[str, float]:
        """The share of each model; together 1."""
        largest = max(self.models.values())  # weights may be as large as numbers can be
        total = sum(weight / largest for weight in self.models.values())
        return {m: round(weight / largest / total, 9) for m, weight in self.models.items()}


class Naming(Strict):
    """How the names that clients ask for lead to models."""

    aliases: dict[Name, Name] = Field(default_factory=dict)
    """Names and what they stand for: a model, an adapter, a split or another alias."""
    splits: dict[Name, Split] = Field(default_factory=dict)
    """Names whose requests are divided between models."""
    fallbacks: dict[Name, Chain] = Field(default_factory=dict)
    """Names to try in order when a model, adapter, alias or split cannot answer. Chains are
    followed to their end: with `{a: [b, d], b: [c]}`, requests for `a` try a, b, c and d, in this
    order. An alias or a split tries what it stands for, with its fallbacks, and then its own."""

    @property
    def targets(self) -> dict[str, tuple[str, ...]]:
        """What each alias and split stands for."""
        return {
            **{name: (target,) for name, target in self.aliases.items()},
            **{name: tuple(split.models) for name, split in self.splits.items()},
        }

    def has_fallback(self, model: str) -> bool:
        """Whether there are requests for `model`, by any name, that can go elsewhere."""
        targets = self.targets
        return any(model in _ends(name, targets) for name in self.fallbacks)

    def flaws(self) -> Iterator[Flaw]:
        """All that contradicts itself here, whatever models there are."""
        for name in (name for name in self.splits if name in self.aliases):
            yield ("splits", name), "is an alias too"
        targets = self.targets
        looping = list(_circles(targets))
        for circle in looping:
            kind = "aliases" if circle[0] in self.aliases else "splits"
            yield (kind, circle[0]), f"stands for itself: {_path(circle)}"
        for name, split in self.splits.items():
            if split.shadow and (both := _ends(name, targets) & _ends(split.shadow.model, targets)):
                at = ("splits", name, "shadow", "model")
                yield at, f"{_list(both)} would shadow itself: the split goes to it"
        for name, chain in self.fallbacks.items():
            yield from self._repetitions(name, chain)
        if not looping:
            yield from self._fallback_circles(targets)

    def _repetitions(self, name: str, chain: Sequence[str]) -> Iterator[Flaw]:
        """Fallbacks that an earlier one, or the name itself, stands for."""
        first = {self._meant(name): name} if name in self.aliases else {}
        for i, each in enumerate(chain):
            earlier = first.setdefault(self._meant(each), each)
            if earlier == each in chain[:i]:
                yield ("fallbacks", name, i), f"`{each}` comes twice"
            elif earlier != each:
                yield ("fallbacks", name, i), f"`{each}` is the same as `{earlier}`"

    def _fallback_circles(self, targets: Mapping[str, Sequence[str]]) -> Iterator[Flaw]:
        names = {**targets, **self.fallbacks}
        graph = {name: (*targets.get(name, ()), *self.fallbacks.get(name, ())) for name in names}
        for circle in _circles(graph):
            # Aliases and splits alone go round in none: there is a fallback on the way.
            at, name, following = next(
                (i, *pair)
                for i, pair in enumerate(pairwise(circle))
                if pair[1] not in targets.get(pair[0], ())
            )
            path = _path([*circle[at:-1], *circle[: at + 1]])
            position = self.fallbacks[name].index(following)
            yield ("fallbacks", name, position), f"`{name}` would fall back to itself: {path}"

    def _meant(self, name: str) -> str:
        """The end of a chain of aliases."""
        seen = set()
        while name in self.aliases and name not in seen:
            seen.add(name)
            name = self.aliases[name]
        return name


def _circles(graph: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Ways from a name back to it, one by one, until none is left."""
    left = {name: list(dict.fromkeys(following)) for name, following in graph.items()}
    order = {name: i for i, name in enumerate(graph)}
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            # The sorter takes what follows here for what goes before.
            around: list[str] = error.args[1][:0:-1]
            start = around.index(min(around, key=order.__getitem__))
            circle = [*around[start:], *around[: start + 1]]
            yield circle
            left[circle[-2]].remove(circle[-1])
        else:
            return


def _ends(name: str, targets: Mapping[str, Sequence[str]]) -> set[str]:
    """All that a name stands for in the end."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        each = todo.pop()
        if each not in seen:
            seen.add(each)
            todo.extend(targets.get(each, ()))
    return {each for each in seen if each not in targets}


def _path(names: Sequence[str]) -> str:
    return " -> ".join(names)


def _list(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
