"""Lookup of a model's weights."""

from pathlib import Path

import pytest

from deployments.engines.weights import resolve_source
from gateway.errors.startup import ConfigError


def test_a_relative_path_is_found_under_the_first_root_that_has_it(tmp_path: Path) -> None:
    """A replica may run in any working directory; the project's folder comes last."""
    (tmp_path / "project" / "models" / "demo").mkdir(parents=True)
    roots = (tmp_path / "elsewhere", tmp_path / "project")

    found = resolve_source("models/demo", roots)

    assert found == str(tmp_path / "project" / "models" / "demo")


def test_other_names_are_hub_names(tmp_path: Path) -> None:
    """`owner/model` looks like a path, but no such directory exists."""
    assert resolve_source("Qwen/Qwen3-8B", (tmp_path,)) == "Qwen/Qwen3-8B"


@pytest.mark.parametrize("source", ["./models/none", "../none", "/none/at/all"])
def test_a_path_must_exist(source: str, tmp_path: Path) -> None:
    """A path that does not exist is an error, not a name on the hub."""
    with pytest.raises(ConfigError, match="no model directory"):
        resolve_source(source, (tmp_path,))
