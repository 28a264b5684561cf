"""Names that clients use: aliases, splits, shadows and fallback chains."""

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
    """Names of a gateway config."""
    return ModelNames(GatewayConfig.model_validate(config))


def split(weights: dict[str, float], **more: object) -> ModelNames:
    """Names of a config with a single split, `chat`."""
    return names(splits={"chat": {"models": weights, **more}})


def drawn_models(of: ModelNames, name: str = "chat") -> list[str]:
    """First model for each of the keys."""
    return [of.route(name, key).models[0] for key in KEYS]


def assert_share(count: int, share: float, of: int = len(KEYS)) -> None:
    """Assert a count within five standard deviations of independent draws."""
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
def test_a_name_resolves_to_models(config: dict[str, object], name: str, models: str) -> None:
    """The target of a name comes first, then its fallbacks, to the end of the chains."""
    assert names(**config).route(name, b"key") == ModelRoute(tuple(models.split()))


def test_long_chains_are_followed() -> None:
    """Chains of two thousand aliases and fallbacks do not exceed the recursion limit."""
    aliases = {f"n{i}": f"n{i + 1}" for i in range(2000)}
    found = names(aliases=aliases, fallbacks={f"m{i}": [f"m{i + 1}"] for i in range(2000)})
    assert found.route("n0", b"").models == ("n2000",)
    assert len(found.route("m0", b"").models) == 2001
    assert found.listed[0].shares == {"n2000": 1.0}


@pytest.mark.parametrize(
    "weights", [{"a": 90, "b": 10}, {"a": 1, "b": 1, "c": 2}, {"a": 0.3, "b": 1e-3}]
)
def test_a_split_divides_requests_by_weight(weights: dict[str, float]) -> None:
    """Each model gets its weight's share of the keys."""
    counts = Counter(drawn_models(split(weights)))
    for model, weight in weights.items():
        assert_share(counts[model], weight / sum(weights.values()))


def test_extreme_weights_are_accepted() -> None:
    """The largest and smallest floats as weights neither fail nor change the order."""
    extreme = split({"a": 1e308, "b": 1e308, "c": 5e-324})
    counts = Counter(drawn_models(extreme))
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
    """Keys move only from models whose share shrinks, or to models whose share grows."""
    old, new = drawn_models(split(before)), drawn_models(split(after))
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
    """A key in one split's canary is no likelier to be in another split's canary."""
    weights = {"a": 90, "b": 10}
    both = names(splits={"one": {"models": weights}, "two": {"models": weights}})
    pairs = Counter(zip(drawn_models(both, "one"), drawn_models(both, "two"), strict=True))
    assert_share(pairs["b", "b"], 0.01)


def test_nested_splits_multiply_their_shares() -> None:
    """A split that is a model of another split divides that model's share."""
    nested = names(
        splits={"outer": {"models": {"inner": 1, "c": 1}}, "inner": {"models": {"a": 3, "b": 1}}}
    )
    counts = Counter(drawn_models(nested, "outer"))
    for model, share in {"a": 0.375, "b": 0.125, "c": 0.5}.items():
        assert_share(counts[model], share)


def test_each_model_of_a_split_has_its_own_fallbacks() -> None:
    """The canary falls back to the old model, and both to the split's own fallback."""
    found = names(
        splits={"chat": {"models": {"old": 1, "new": 1}}},
        fallbacks={"new": ["old"], "chat": ["last"]},
    )
    assert {found.route("chat", key).models for key in KEYS[:64]} == {
        ("old", "last"),
        ("new", "old", "last"),
    }


def test_a_shadow_gets_its_fraction() -> None:
    """The fraction is copied: always the same keys, equally from each model."""
    found = split({"a": 1, "b": 1}, shadow={"model": "c", "fraction": 0.1})
    routes = [found.route("chat", key) for key in KEYS]
    assert routes == [found.route("chat", key) for key in KEYS]
    counts = Counter((route.models[0], route.shadow) for route in routes)
    assert_share(counts["a", "c"], 0.05)
    assert_share(counts["b", "c"], 0.05)
    assert {shadow for _, shadow in counts} == {"c", None}


def test_a_larger_fraction_still_copies_the_same_keys() -> None:
    """Keys whose requests were copied are still copied when the fraction grows."""
    copied = []
    for fraction in (0.1, 0.3):
        found = split({"a": 1}, shadow={"model": "c", "fraction": fraction})
        copied.append({key for key in KEYS if found.route("chat", key).shadow})
    assert copied[0] < copied[1]


def test_a_shadow_belongs_to_its_split() -> None:
    """Requests that reach the split by an alias are copied; those that fall back to it are not."""
    found = names(
        aliases={"x": "chat", "pale": "c"},
        splits={"chat": {"models": {"a": 1}, "shadow": {"model": "pale", "fraction": 1}}},
        fallbacks={"b": ["chat"]},
    )
    assert found.route("x", b"key") == ModelRoute(("a",), "c")
    assert found.route("b", b"key") == ModelRoute(("b", "a"))
    assert found.route("a", b"key") == ModelRoute(("a",))


def test_only_names_with_a_split_on_their_way_depend_on_the_key() -> None:
    """For all other names no key has to be computed."""
    found = names(
        aliases={"x": "chat", "y": "a"},
        splits={"chat": {"models": {"a": 1, "b": 1}}},
        fallbacks={"c": ["chat"], "d": ["a"]},
    )
    drawn = {
        name for name in ("x", "y", "chat", "a", "b", "c", "d", "e") if found.depends_on_key(name)
    }
    assert drawn == {"x", "chat", "c"}


def test_names_are_listed() -> None:
    """Aliases and splits are listed with the models they finally lead to."""
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
def test_every_accepted_config_leads_to_models(
    aliases: dict[str, str],
    splits: dict[str, set[str]],
    fallbacks: dict[str, list[str]],
    key: bytes,
) -> None:
    """In an accepted config every name leads to models only, and to each of them once."""
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
    """Route by plain recursion; only the model that a split chooses is taken from `found`."""
    if name in config.splits:
        target: str | None = found._splits[name].model(key)
    else:
        target = config.aliases.get(name)
    ways = [target] if target else []
    first = () if target else (name,)
    ways += config.fallbacks.get(name, [])
    later = [model for way in ways for model in expected(config, found, way, key)]
    return tuple(dict.fromkeys([*first, *later]))


def contradicts_itself(
    aliases: dict[str, str], splits: dict[str, set[str]], fallbacks: dict[str, list[str]]
) -> bool:
    """Whether some name leads back to itself, or a chain repeats a name."""
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

    def alias_target(name: str) -> str:
        return alias_target(aliases[name]) if name in aliases else name

    return any(
        len(
            {alias_target(each) for each in chain}
            | ({alias_target(name)} if name in aliases else set())
        )
        < len(chain) + (name in aliases)
        for name, chain in fallbacks.items()
    )
