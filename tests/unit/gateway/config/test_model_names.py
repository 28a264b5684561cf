"""Tests of gateway.config.model_names: aliases, splits, shadows and fallback chains."""

import math
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.gateway import GatewayConfig
from gateway.config.model_names import ListedName, ModelNames, ModelRoute

KEYS = [b"session-%d" % i for i in range(20_000)]


def names(**config: object) -> ModelNames:
    """The names of a gateway config."""
    return ModelNames(GatewayConfig.model_validate(config))


def split(weights: dict[str, float], **more: object) -> ModelNames:
    """The names of a config with nothing but one split, `chat`."""
    return names(splits={"chat": {"models": weights, **more}})


def arms(of: ModelNames, name: str = "chat") -> list[str]:
    """Where each of the keys goes first."""
    return [of.route(name, key).models[0] for key in KEYS]


def assert_share(count: int, share: float, of: int = len(KEYS)) -> None:
    """Within five standard deviations of what independent draws would give."""
    assert abs(count - share * of) < 5 * math.sqrt(of * share * (1 - share)), (count, share * of)


@pytest.mark.parametrize(
    ("config", "name", "models"),
    [
        ({}, "a", "a"),
        ({"aliases": {"x": "a"}}, "x", "a"),
        ({"aliases": {"x": "a"}}, "a", "a"),
        ({"aliases": {"x": "y", "y": "z", "z": "a"}}, "x", "a"),
        ({"fallbacks": {"a": ["b", "c"]}}, "a", "a b c"),
        ({"fallbacks": {"a": ["b", "c"]}}, "b", "b"),
        # fallbacks of fallbacks, depth first, each once
        ({"fallbacks": {"a": ["b"], "b": ["c"]}}, "a", "a b c"),
        ({"fallbacks": {"a": ["b", "d"], "b": ["c"]}}, "a", "a b c d"),
        ({"fallbacks": {"a": ["b", "c"], "b": ["c", "d"]}}, "a", "a b c d"),
        # what a name stands for, the fallbacks of that, then its own
        ({"aliases": {"x": "a"}, "fallbacks": {"a": ["b"]}}, "x", "a b"),
        ({"aliases": {"x": "a"}, "fallbacks": {"x": ["b"]}}, "x", "a b"),
        ({"aliases": {"x": "a"}, "fallbacks": {"x": ["b"]}}, "a", "a"),
        ({"aliases": {"x": "a"}, "fallbacks": {"x": ["c"], "a": ["b"]}}, "x", "a b c"),
        # names in a chain stand for what they always do
        ({"aliases": {"x": "b"}, "fallbacks": {"a": ["x"], "b": ["c"]}}, "a", "a b c"),
        ({"splits": {"s": {"models": {"b": 1}}}, "fallbacks": {"a": ["s", "c"]}}, "a", "a b c"),
        ({"splits": {"s": {"models": {"a": 1}}}, "fallbacks": {"s": ["b"]}}, "s", "a b"),
        ({"splits": {"s": {"models": {"a": 1}}}, "fallbacks": {"a": ["b"]}}, "s", "a b"),
        ({"aliases": {"x": "s"}, "splits": {"s": {"models": {"a": 1}}}}, "x", "a"),
        ({"aliases": {"x": "a"}, "splits": {"s": {"models": {"x": 1}}}}, "s", "a"),
    ],
)
def test_a_name_leads_to_models(config: dict[str, object], name: str, models: str) -> None:
    """What a name stands for comes first, then the fallbacks, as far as chains lead."""
    assert names(**config).route(name, b"key") == ModelRoute(tuple(models.split()))


def test_long_chains_are_walked() -> None:
    """A thousand aliases and a thousand fallbacks in a row are no matter of recursion."""
    aliases = {f"n{i}": f"n{i + 1}" for i in range(2000)}
    found = names(aliases=aliases, fallbacks={f"m{i}": [f"m{i + 1}"] for i in range(2000)})
    assert found.route("n0", b"").models == ("n2000",)
    assert len(found.route("m0", b"").models) == 2001
    assert found.listed[0].shares == {"n2000": 1.0}


@pytest.mark.parametrize(
    "weights", [{"a": 90, "b": 10}, {"a": 1, "b": 1, "c": 2}, {"a": 0.3, "b": 1e-3}]
)
def test_a_split_shares_out_by_weight(weights: dict[str, float]) -> None:
    """Each model gets its weight's part of the keys."""
    counts = Counter(arms(split(weights)))
    for model, weight in weights.items():
        assert_share(counts[model], weight / sum(weights.values()))


def test_weights_may_be_far_apart() -> None:
    """Weights at the ends of what a number can be neither fail nor upset the order."""
    extreme = split({"a": 1e308, "b": 1e308, "c": 5e-324})
    counts = Counter(arms(extreme))
    assert_share(counts["a"], 0.5)
    assert counts["c"] == 0
    assert extreme.listed[0].shares == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_a_key_stays_with_its_model() -> None:
    """The same key goes to the same model, whatever the order in the file and in every process."""
    here = [split({"a": 1, "b": 1}).route("chat", key).models[0] for key in KEYS[:64]]
    other = [split({"b": 2, "a": 2}).route("chat", key).models[0] for key in KEYS[:64]]
    code = (
        "from gateway.config.gateway import GatewayConfig\n"
        "from gateway.config.model_names import ModelNames\n"
        "n = ModelNames(GatewayConfig(splits={'chat': {'models': {'a': 1, 'b': 1}}}))\n"
        "print(*(n.route('chat', b'session-%d' % i).models[0] for i in range(64)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert here == other == run.stdout.split()
    assert set(here) == {"a", "b"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 90, "b": 10}, {"a": 80, "b": 20}),
        ({"a": 50, "b": 30, "c": 20}, {"a": 40, "b": 30, "c": 20}),
        ({"a": 50, "b": 50}, {"a": 50, "b": 50, "c": 50}),
        ({"a": 50, "b": 30, "c": 20}, {"a": 50, "c": 20}),
    ],
)
def test_few_keys_move_when_weights_change(
    before: dict[str, float], after: dict[str, float]
) -> None:
    """Keys leave models whose share shrinks for models whose share grows, and no others move."""
    old, new = arms(split(before)), arms(split(after))
    gains = [
        after.get(m, 0) / sum(after.values()) - before.get(m, 0) / sum(before.values())
        for m in {**before, **after}
    ]
    moved = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    for left, reached in set(moved):
        has_lost = after.get(left, 0) < before.get(left, 0)
        assert has_lost or after.get(reached, 0) > before.get(reached, 0)
    assert_share(len(moved), sum(gain for gain in gains if gain > 0))


def test_splits_are_drawn_independently() -> None:
    """Who gets the canary of one split is no likelier than others to get that of another."""
    weights = {"a": 90, "b": 10}
    both = names(splits={"one": {"models": weights}, "two": {"models": weights}})
    pairs = Counter(zip(arms(both, "one"), arms(both, "two"), strict=True))
    assert_share(pairs["b", "b"], 0.01)


def test_a_split_in_a_split_shares_out_its_part() -> None:
    """A split may be one of another's models: the shares multiply."""
    nested = names(
        splits={"outer": {"models": {"inner": 1, "c": 1}}, "inner": {"models": {"a": 3, "b": 1}}}
    )
    counts = Counter(arms(nested, "outer"))
    for model, share in {"a": 0.375, "b": 0.125, "c": 0.5}.items():
        assert_share(counts[model], share)


def test_each_arm_has_its_own_fallbacks() -> None:
    """The canary falls back to the model it is to replace, and both to what the split names."""
    found = names(
        splits={"chat": {"models": {"old": 1, "new": 1}}},
        fallbacks={"new": ["old"], "chat": ["last"]},
    )
    assert {found.route("chat", key).models for key in KEYS[:64]} == {
        ("old", "last"),
        ("new", "old", "last"),
    }


def test_a_shadow_gets_its_fraction() -> None:
    """The fraction is copied, the same keys every time, as many of each arm."""
    found = split({"a": 1, "b": 1}, shadow={"model": "c", "fraction": 0.1})
    courses = [found.route("chat", key) for key in KEYS]
    assert courses == [found.route("chat", key) for key in KEYS]
    counts = Counter((route.models[0], route.shadow) for route in courses)
    assert_share(counts["a", "c"], 0.05)
    assert_share(counts["b", "c"], 0.05)
    assert {shadow for _, shadow in counts} == {"c", None}


def test_a_larger_fraction_keeps_what_was_copied() -> None:
    """Keys whose requests were copied go on being copied when the fraction grows."""
    copied = []
    for fraction in (0.1, 0.3):
        found = split({"a": 1}, shadow={"model": "c", "fraction": fraction})
        copied.append({key for key in KEYS if found.route("chat", key).shadow})
    assert copied[0] < copied[1]


def test_a_shadow_belongs_to_its_split() -> None:
    """Requests that come to the split by an alias are copied, those falling back to it are not."""
    found = names(
        aliases={"x": "chat", "pale": "c"},
        splits={"chat": {"models": {"a": 1}, "shadow": {"model": "pale", "fraction": 1}}},
        fallbacks={"b": ["chat"]},
    )
    assert found.route("x", b"key") == ModelRoute(("a",), "c")
    assert found.route("b", b"key") == ModelRoute(("b", "a"))
    assert found.route("a", b"key") == ModelRoute(("a",))


def test_what_is_drawn_depends_on_the_key() -> None:
    """Only names on whose way there is a split: for all others nobody has to look for a key."""
    found = names(
        aliases={"x": "chat", "y": "a"},
        splits={"chat": {"models": {"a": 1, "b": 1}}},
        fallbacks={"c": ["chat"], "d": ["a"]},
    )
    drawn = {name for name in ("x", "y", "chat", "a", "b", "c", "d", "e") if found.is_drawn(name)}
    assert drawn == {"x", "chat", "c"}


def test_names_are_listed() -> None:
    """Aliases and splits are listed with the models they stand for in the end."""
    found = names(
        aliases={"x": "chat", "y": "a"},
        splits={"chat": {"models": {"y": 9, "b": 1}, "shadow": {"model": "c", "fraction": 1}}},
        fallbacks={"a": ["d"]},
    )
    assert found.listed == (
        ListedName("x", "alias", {"a": 0.9, "b": 0.1}),
        ListedName("y", "alias", {"a": 1.0}),
        ListedName("chat", "split", {"a": 0.9, "b": 0.1}),
    )


NAME = st.sampled_from("abcdefg")


@settings(deadline=None)
@given(
    aliases=st.dictionaries(NAME, NAME, max_size=4),
    splits=st.dictionaries(NAME, st.sets(NAME, min_size=1, max_size=3), max_size=3),
    fallbacks=st.dictionaries(NAME, st.lists(NAME, min_size=1, max_size=3), max_size=4),
    key=st.binary(max_size=4),
)
def test_every_accepted_config_leads_somewhere(
    aliases: dict[str, str],
    splits: dict[str, set[str]],
    fallbacks: dict[str, list[str]],
    key: bytes,
) -> None:
    """What is not refused goes, for every name, to models only and to each of them once."""
    try:
        config = GatewayConfig.model_validate(
            {
                "aliases": aliases,
                "splits": {name: {"models": dict.fromkeys(m, 1)} for name, m in splits.items()},
                "fallbacks": fallbacks,
            }
        )
    except ValueError:
        assert contradicts_itself(aliases, splits, fallbacks)
        return
    assert not contradicts_itself(aliases, splits, fallbacks)
    for name in "abcdefg":
        models = ModelNames(config).route(name, key).models
        assert models == expected(config, ModelNames(config), name, key)
        assert not {*models} & {*aliases, *splits}


def expected(config: GatewayConfig, found: ModelNames, name: str, key: bytes) -> tuple[str, ...]:
    """The course by plain recursion, taking from `found` only which model a split chooses."""
    if name in config.splits:
        stands_for: str | None = found._splits[name].model(key)
    else:
        stands_for = config.aliases.get(name)
    ways = [stands_for] if stands_for else []
    first = () if stands_for else (name,)
    ways += config.fallbacks.get(name, [])
    later = [model for way in ways for model in expected(config, found, way, key)]
    return tuple(dict.fromkeys([*first, *later]))


def contradicts_itself(
    aliases: dict[str, str], splits: dict[str, set[str]], fallbacks: dict[str, list[str]]
) -> bool:
    """Whether following names can come back to one, or a chain names something twice."""
    if aliases.keys() & splits.keys():
        return True
    follow = {n: {aliases[n]} if n in aliases else splits.get(n, set()) for n in "abcdefg"}
    for name, chain in fallbacks.items():
        follow[name] = follow[name] | set(chain)
    reached = {n: set(f) for n, f in follow.items()}
    for _ in "abcdefg":
        reached = {n: r.union(*(reached[each] for each in r)) for n, r in reached.items()}
    if any(n in r for n, r in reached.items()):
        return True

    def meant(name: str) -> str:
        return meant(aliases[name]) if name in aliases else name

    return any(
        len({meant(each) for each in chain} | ({meant(name)} if name in aliases else set()))
        < len(chain) + (name in aliases)
        for name, chain in fallbacks.items()
    )
