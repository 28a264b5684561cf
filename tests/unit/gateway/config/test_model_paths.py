"""Paths in model entries: what is a path, and where it leads."""

import json
from pathlib import Path

import pytest
from pydantic import JsonValue

from gateway.config.loader import parse_entry
from gateway.config.model_paths import is_path, located_arguments, wrong_paths

ENTRY = {"name": "m", "engine": "vllm", "source": "org/m"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folder with a model, an adapter, a template and a plugin."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    (tmp_path / "parser.py").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path


def problems(root: Path, **fields: object) -> list[str]:
    """Paths of the entry that are wrong, each with its message."""
    found = wrong_paths(parse_entry({**ENTRY, **fields}), (root,))
    return [f"{'.'.join(map(str, path))}: {message}" for path, message in found]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Qwen/Qwen3-8B", False),
        ("gpt2", False),
        ("org/repo/file.gguf", False),
        ("s3://bucket/a/b/c", False),
        ("env:SOURCE", False),
        ("/models/x", True),
        ("./x", True),
        ("~/x", True),
        ("models/demo/typo", True),
    ],
)
def test_a_path_is_told_from_a_name_on_the_hub(source: str, expected: bool) -> None:
    """By its form alone."""
    assert is_path(source) is expected


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"source": "/no/such"}, 'source: no directory "/no/such" on this machine: /no/such'),
        ({"source": "./none"}, 'source: no directory "./none" on this machine: {root}/none'),
        ({"source": "./chat.jinja"}, "source: {root}/chat.jinja is not a directory"),
        ({"source": "empty"}, "source: {root}/empty has no config.json or params.json"),
        (
            {"source": "org/two words"},
            'source: "org/two words" is neither a directory here nor a name on a model hub',
        ),
        ({"source": "./loop"}, 'source: no directory "./loop" on this machine: {root}/loop'),
        (
            {"adapters": [{"name": "a", "source": "./none"}]},
            'adapters.0.source: no directory "./none" on this machine: {root}/none',
        ),
        (
            {"adapters": [{"name": "a", "source": "model"}]},
            "adapters.0.source: {root}/model has no adapter_config.json",
        ),
        (
            {"engine_args": {"chat_template": "./none.jinja"}},
            'engine_args.chat_template: no file "./none.jinja" on this machine: {root}/none.jinja',
        ),
        (
            {"engine_args": {"chat_template": "model"}},
            "engine_args.chat_template: {root}/model is not a file",
        ),
        (
            {"engine_args": {"tool_parser_plugin": "none.py"}},
            'engine_args.tool_parser_plugin: no file "none.py" on this machine: {root}/none.py',
        ),
        (
            {"engine_args": {"speculative_config": {"model": "/no/draft"}}},
            (
                'engine_args.speculative_config.model: no directory "/no/draft" on this machine:'
                " /no/draft"
            ),
        ),
        (
            {"source": "model", "max_model_len": 8192},
            (
                "max_model_len: 8192 is more than the model's own limit 4096 (in"
                " {root}/model/config.json)"
            ),
        ),
    ],
)
def test_a_path_that_leads_nowhere_is_reported(
    root: Path, fields: dict[str, object], problem: str
) -> None:
    """The line says what was looked for, and where."""
    assert problems(root, **fields) == [problem.format(root=root)]


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "model", "max_model_len": 4096},
        {"source": "model", "max_model_len": 9000, "engine_args": {"hf_overrides": {"a": 1}}},
        {"adapters": [{"name": "a", "source": "adapter"}, {"name": "b", "source": "org/b"}]},
        {"engine_args": {"chat_template": "{{ messages }}"}},
        {"engine_args": {"chat_template": "chat.jinja", "tool_parser_plugin": "parser.py"}},
        {"engine_args": {"reasoning_parser_plugin": "a.module", "generation_config": "vllm"}},
        {"engine_args": {"speculative_config": {"method": "ngram"}, "tokenizer": "env:T"}},
    ],
)
def test_paths_that_lead_somewhere_are_accepted(root: Path, fields: dict[str, object]) -> None:
    """So are templates written out, names of modules, and names on the hub."""
    assert problems(root, **fields) == []


def test_arguments_have_absolute_paths_in_the_engine(root: Path) -> None:
    """Its working directory is not that of whoever wrote the file."""
    args: dict[str, JsonValue] = {
        "chat_template": "chat.jinja",
        "tokenizer": "model",
        "speculative_config": {"model": "model", "num_speculative_tokens": 1},
        "generation_config": "vllm",
        "seed": 1,
    }
    assert located_arguments(args, (root,)) == {
        "chat_template": f"{root}/chat.jinja",
        "tokenizer": f"{root}/model",
        "speculative_config": {"model": f"{root}/model", "num_speculative_tokens": 1},
        "generation_config": "vllm",
        "seed": 1,
    }
