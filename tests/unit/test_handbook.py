"""Tests of gateway.handbook: the reference is complete, right, and the one in docs/."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from gateway.cli import app
from gateway.config.gateway import GatewayConfig
from gateway.config.loader import load_config
from gateway.config.sim import SimEntry
from gateway.config.vllm import VllmEntry
from gateway.handbook import EXAMPLES, FILE, handbook

KEPT = Path(__file__).parents[2] / "docs" / "models.md"
MODELS: list[type[BaseModel]] = [VllmEntry, SimEntry, GatewayConfig]


def test_the_kept_reference_is_up_to_date() -> None:
    """docs/models.md is what `gateway docs` prints now."""
    printed = CliRunner().invoke(app, ["docs"]).stdout
    assert KEPT.read_text() == printed, "run: gateway docs > docs/models.md"


def test_every_field_has_its_row() -> None:
    """All fields of entries and the gateway config stand in a table, with what they mean."""
    rows = [line.split(" | ") for line in handbook().splitlines() if line.startswith("| `")]
    found = {row[0].strip("|` ") for row in rows}
    for model in MODELS:
        assert set(model.model_fields) <= found
    assert all(len(row) == 4 and row[3].strip(" |") for row in rows), "a field without docstring"


def test_nested_fields_have_their_sections() -> None:
    """Every link inside the page leads to a section, and nested settings are among them."""
    page = handbook()
    headings = {
        line.strip("# ").lower().replace(" ", "-") for line in page.splitlines() if line[:2] == "##"
    }
    links = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert links <= headings
    assert {"autoscaling", "simulation", "adapter", "split", "shadow"} <= links


def test_values_are_told_in_words() -> None:
    """Types, ranges, choices and defaults are what a reader would say."""
    rows = {line.split(" | ")[0]: line for line in handbook().splitlines()}
    assert rows["| `name`"].startswith("| `name` | text | required |")
    assert "| number > 0, ≤ 1 | `0.7` |" in rows["| `target_utilization`"]
    assert "| whole number ≥ 1 | unset |" in rows["| `replicas`"]
    assert "| `hold` or `fallback` | `hold` |" in rows["| `when_cold`"]
    assert "| mapping of text to any value | none |" in rows["| `engine_args`"]
    assert "| mapping of text to list of text | none |" in rows["| `fallbacks`"]


@pytest.mark.parametrize("model", MODELS)
def test_an_example_is_valid(model: type[BaseModel]) -> None:
    """What a section shows may stand there."""
    model.model_validate(yaml.safe_load(EXAMPLES[model.__name__]))


def test_the_file_shown_is_valid(tmp_path: Path) -> None:
    """The whole file at the top of the page passes the check."""
    path = tmp_path / "file.yaml"
    path.write_text(FILE)
    assert [model.name for model in load_config(path).models] == ["qwen3-8b"]
