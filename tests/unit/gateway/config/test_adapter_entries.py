"""Adapters in a model entry: how many are loaded, and which fields conflict with them."""

import pytest

from gateway.config.entry import DEFAULT_LOADED_ADAPTERS
from gateway.config.loader import parse_entry
from gateway.errors.startup import ConfigError


def adapters(*names: str) -> list[dict[str, str]]:
    """Adapters with these names."""
    return [{"name": name, "source": "somewhere"} for name in names]


@pytest.mark.parametrize(
    ("count", "limit", "loaded"),
    [
        (0, None, 0),
        (3, None, 3),
        (20, None, DEFAULT_LOADED_ADAPTERS),
        (3, 2, 2),
        (3, 5, 3),
        (20, 20, 20),
    ],
)
def test_adapters_are_loaded_up_to_the_limit(count: int, limit: int | None, loaded: int) -> None:
    """All adapters are loaded unless there are more than the limit or its default."""
    names = [str(number) for number in range(count)]
    document = {"name": "m", "engine": "sim", "adapters": adapters(*names)}
    entry = parse_entry({**document, "max_loaded_adapters": limit} if limit else document)

    assert entry.loaded_adapters_limit == loaded


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (
            {"adapters": adapters("a", "b", "a")},
            "adapters[2].name: `a` is also the name of adapters[0]",
        ),
        ({"adapters": adapters("m")}, "adapters[0].name: `m` is the model's own name"),
        ({"max_loaded_adapters": 2}, "max_loaded_adapters: has no effect without `adapters`"),
        (
            {"engine_args": {"max-loras": 2}},
            "engine_args.max-loras: is set by `max_loaded_adapters`: remove it from `engine_args`",
        ),
        (
            {"engine_args": {"lora_modules": []}},
            "engine_args.lora_modules: is what `adapters` is for: remove it from `engine_args`",
        ),
        (
            {"engine_args": {"enable_lora": True}},
            "engine_args.enable_lora: is decided by `adapters`: remove it from `engine_args`",
        ),
    ],
)
def test_fields_that_conflict_with_adapters_are_rejected(
    document: dict[str, object], problem: str
) -> None:
    """One line gives the path and the reason."""
    with pytest.raises(ConfigError) as caught:
        parse_entry({"name": "m", "engine": "vllm", "source": "s", **document})

    assert str(caught.value) == f'model "m": {problem}'


def test_the_largest_rank_may_be_set() -> None:
    """Adapters added later may have a larger rank than today's."""
    parse_entry(
        {"name": "m", "engine": "vllm", "source": "s", "engine_args": {"max_lora_rank": 64}}
    )
