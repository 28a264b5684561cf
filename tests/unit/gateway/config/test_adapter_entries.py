"""What an entry says of adapters: how many are loaded, and what contradicts them."""

import pytest

from gateway.config.entry import MOST_LOADED_ADAPTERS
from gateway.config.loader import parse_entry
from gateway.errors import ConfigError


def adapters(*names: str) -> list[dict[str, str]]:
    """Adapters of these names."""
    return [{"name": name, "source": "somewhere"} for name in names]


@pytest.mark.parametrize(
    ("count", "most", "loaded"),
    [
        (0, None, 0),
        (3, None, 3),
        (20, None, MOST_LOADED_ADAPTERS),
        (3, 2, 2),
        (3, 5, 3),
        (20, 20, 20),
    ],
)
def test_how_many_adapters_are_loaded(count: int, most: int | None, loaded: int) -> None:
    """All of them where nothing is said, up to what a node surely has room for."""
    names = [str(number) for number in range(count)]
    document = {"name": "m", "engine": "sim", "adapters": adapters(*names)}
    entry = parse_entry({**document, "max_loaded_adapters": most} if most else document)

    assert entry.most_loaded_adapters == loaded


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (
            {"adapters": adapters("a", "b", "a")},
            "adapters[2].name: `a` is the name of adapters[0] too",
        ),
        ({"adapters": adapters("m")}, "adapters[0].name: `m` is the model's own name"),
        ({"max_loaded_adapters": 2}, "max_loaded_adapters: means nothing without `adapters`"),
        (
            {"engine_args": {"max-loras": 2}},
            "engine_args.max-loras: is set by `max_loaded_adapters`: take it out of `engine_args`",
        ),
        (
            {"engine_args": {"lora_modules": []}},
            "engine_args.lora_modules: is what `adapters` is for: take it out of `engine_args`",
        ),
        (
            {"engine_args": {"enable_lora": True}},
            "engine_args.enable_lora: is decided by `adapters`: take it out of `engine_args`",
        ),
    ],
)
def test_what_contradicts_adapters(document: dict[str, object], problem: str) -> None:
    """One line says where, and what."""
    with pytest.raises(ConfigError) as caught:
        parse_entry({"name": "m", "engine": "vllm", "source": "s", **document})

    assert str(caught.value) == f'model "m": {problem}'


def test_the_largest_rank_may_be_said() -> None:
    """Adapters that will be added later may have a larger one than those of today."""
    parse_entry(
        {"name": "m", "engine": "vllm", "source": "s", "engine_args": {"max_lora_rank": 64}}
    )
