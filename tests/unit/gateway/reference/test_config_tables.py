"""The tables of config fields are complete, correct, and the ones in docs/models.md."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from gateway.config.accounts import AccountsConfig
from gateway.config.gateway import GatewayConfig
from gateway.config.loader import load_config
from gateway.config.projects import Projects
from gateway.config.sim import SimEntry
from gateway.config.vllm import VllmEntry
from gateway.reference.config_tables import config_tables
from gateway.reference.pages import marked

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "models.md").read_text()
MODELS: list[type[BaseModel]] = [VllmEntry, SimEntry, GatewayConfig, Projects]
FILE, VLLM, SIM, GATEWAY, _, ACCOUNTS, PROJECTS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
(MINIMAL,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_every_field_has_its_row() -> None:
    """Every field of the entries and the gateway config is in a table, with its meaning."""
    lines = "\n".join(config_tables().values()).splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| `")]
    found = {row[0].strip("|` ") for row in rows}
    for model in MODELS:
        assert set(model.model_fields) <= found
    assert all(len(row) == 4 and row[3].strip(" |") for row in rows), "a field without docstring"


def test_the_page_has_all_tables_in_order() -> None:
    """docs/models.md marks each table once, nested ones after their parents."""
    assert [topic for topic, _ in marked(PAGE)] == ["config"] * len(config_tables())
    assert sorted(name for _, name in marked(PAGE)) == sorted(config_tables())


def test_nested_fields_have_their_sections() -> None:
    """Every link within the page leads to a section, also those of nested settings."""
    headings = {
        line.strip("# ").lower().replace(" ", "-") for line in PAGE.splitlines() if line[:2] == "##"
    }
    links = {part.partition(")")[0] for part in PAGE.split("](#")[1:]}
    assert links <= headings
    assert {"autoscaling", "simulation", "adapter", "split", "shadow"} <= links


def test_values_are_described_in_plain_words() -> None:
    """Types, ranges, choices and defaults are in plain words."""
    lines = "\n".join(config_tables().values()).splitlines()
    rows = {line.split(" | ")[0]: line for line in reversed(lines)}
    assert rows["| `name`"].startswith("| `name` | text | required |")
    assert "| number > 0, ≤ 1 | `0.7` |" in rows["| `target_utilization`"]
    assert "| whole number ≥ 1 | unset |" in rows["| `replicas`"]
    assert "| `hold` or `fallback` | `hold` |" in rows["| `when_cold`"]
    assert "| mapping of text to any value | none |" in rows["| `engine_args`"]
    assert "| mapping of text to list of text | none |" in rows["| `fallbacks`"]


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (VllmEntry, VLLM),
        (SimEntry, SIM),
        (GatewayConfig, GATEWAY),
        (AccountsConfig, ACCOUNTS),
        (Projects, PROJECTS),
    ],
)
def test_an_example_is_valid(model: type[BaseModel], example: str) -> None:
    """The YAML in a section passes validation."""
    model.model_validate(yaml.safe_load(example))


@pytest.mark.parametrize(
    ("shown", "models"), [(FILE, ["qwen3-8b"]), (MINIMAL, ["qwen3-8b", "embed"])]
)
def test_a_whole_file_is_valid(tmp_path: Path, shown: str, models: list[str]) -> None:
    """The whole files at the top of the page and in the README pass the check."""
    path = tmp_path / "file.yaml"
    path.write_text(shown)
    assert [model.name for model in load_config(path).models] == models
