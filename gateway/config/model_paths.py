"""Paths in model entries: which of their texts are paths, and where they lead on this machine.

`source` may be a path or a name on the model hub. It is a path if it says so (`/`, `./`, `~`), if
it has more parts than a hub's name can have, or if a directory of that name exists.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from gateway.config.model import ModelEntry
from gateway.config.packaged import PACKAGED
from gateway.config.references import Reference
from gateway.config.strict import ConfigPath, FieldError, format_value
from gateway.config.vllm import VllmEntry

MODEL_FILES = ("config.json", "params.json")
"""Files of which every model's directory has one."""
ADAPTER_FILES = ("adapter_config.json",)

_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+){0,2}(:[\w.-]+)?")

MODELS = ("tokenizer", "spec_model", "hf_config_path")
"""Arguments that name a model: a directory, or a name on the hub."""
FILES = ("chat_template", "tool_parser_plugin", "reasoning_parser_plugin")
"""Arguments that name a file, or hold what could be in it."""
DIRECTORIES = ("allowed_local_media_path", "generation_config")


def source_roots() -> tuple[Path, ...]:
    """Directories that relative paths in an entry may start from."""
    return Path.cwd(), PACKAGED


def is_path(source: str) -> bool:
    """Whether a source can only be a path, whatever exists here."""
    if "://" in source or Reference.of(source):
        return False
    is_file_on_hub = source.endswith(".gguf") and source.count("/") == 2
    return source.startswith(("/", ".", "~")) or (source.count("/") > 1 and not is_file_on_hub)


def found_path(
    source: str, roots: Iterable[Path], exists: Callable[[Path], bool] = Path.is_dir
) -> Path | None:
    """Absolute path that `source` leads to, under the first of `roots` that has it."""
    return next((path.resolve() for path in places(source, roots) if _is(path, exists)), None)


def places(source: str, roots: Iterable[Path]) -> list[Path]:
    """Absolute paths that `source` may mean."""
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - pathlib's raises without a home
    return [path] if path.is_absolute() else [(root / path).absolute() for root in roots]


def located_arguments(
    engine_args: Mapping[str, JsonValue], roots: Sequence[Path]
) -> dict[str, JsonValue]:
    """`engine_args` with the paths in them absolute, where they lead somewhere."""
    located: dict[str, JsonValue] = {}
    for name, value in engine_args.items():
        exists = Path.is_file if name in FILES else Path.is_dir
        if name in (*MODELS, *FILES, *DIRECTORIES) and isinstance(value, str):
            located[name] = str(found_path(value, roots, exists) or value) if value else value
        else:
            located[name] = value
    speculation = located.get("speculative_config")
    if isinstance(speculation, dict) and isinstance(model := speculation.get("model"), str):
        located["speculative_config"] = {
            **speculation,
            "model": str(found_path(model, roots) or model),
        }
    return located


def wrong_paths(entry: ModelEntry, roots: Sequence[Path]) -> Iterator[FieldError]:
    """Paths of an entry that lead nowhere on this machine, or to the wrong thing."""
    if isinstance(entry, VllmEntry):
        yield from _wrong_model(entry.source, ("source",), roots, MODEL_FILES)
        yield from _too_long(entry, roots)
        for i, adapter in enumerate(entry.adapters):
            path = ("adapters", i, "source")
            yield from _wrong_model(adapter.source, path, roots, ADAPTER_FILES)
        yield from _wrong_arguments(entry.engine_args, roots)


def _wrong_arguments(
    engine_args: Mapping[str, JsonValue], roots: Sequence[Path]
) -> Iterator[FieldError]:
    named: dict[ConfigPath, JsonValue] = {(name,): engine_args.get(name) for name in MODELS}
    speculation = engine_args.get("speculative_config")
    if isinstance(speculation, dict):
        named["speculative_config", "model"] = speculation.get("model")
    for inner, value in named.items():
        if isinstance(value, str):
            yield from _wrong_model(value, ("engine_args", *inner), roots, ())
    for name in FILES:
        value = engine_args.get(name)
        if isinstance(value, str) and _names_file(name, value):
            yield from _wrong(value, ("engine_args", name), roots, Path.is_file, "file")
    for name in DIRECTORIES:
        value = engine_args.get(name)
        if isinstance(value, str) and is_path(value):
            yield from _wrong(value, ("engine_args", name), roots, Path.is_dir, "directory")


def _names_file(name: str, value: str) -> bool:
    """Whether an argument's value is a path, and not a template or the name of a module."""
    if not value or Reference.of(value) or "://" in value:
        return False
    if name == "chat_template":
        return not set("{}\n") & set(value)
    return "/" in value or value.endswith(".py")


def _wrong_model(
    source: str, path: ConfigPath, roots: Sequence[Path], wanted: Sequence[str]
) -> Iterator[FieldError]:
    folder = found_path(source, roots)
    if folder is None:
        if is_path(source):
            yield from _wrong(source, path, roots, Path.is_dir, "directory")
        elif wanted and not _may_be_on_hub(source):
            found = format_value(source)
            message = f"{found} is neither a directory here nor a name on a model hub"
            yield FieldError(path, message)
    elif wanted and not any(_is(folder / name, Path.is_file) for name in wanted):
        yield FieldError(path, f"{folder} has no {' or '.join(wanted)}")


def _may_be_on_hub(source: str) -> bool:
    return bool(_HUB_NAME.fullmatch(source) or "://" in source or Reference.of(source))


def _wrong(
    value: str, path: ConfigPath, roots: Sequence[Path], exists: Callable[[Path], bool], noun: str
) -> Iterator[FieldError]:
    if found_path(value, roots, exists) is not None:
        return
    looked = places(value, roots)
    other = next((each for each in looked if _is(each, Path.exists)), None)
    if other is not None:
        yield FieldError(path, f"{other} is not a {noun}")
    else:
        where = " or ".join(map(str, dict.fromkeys(looked)))
        yield FieldError(path, f"no {noun} {format_value(value)} on this machine: {where}")


def _is(path: Path, exists: Callable[[Path], bool]) -> bool:
    try:
        return exists(path)
    except (OSError, ValueError):  # a loop of links, a folder that may not be read, a NUL
        return False


def _too_long(entry: VllmEntry, roots: Sequence[Path]) -> Iterator[FieldError]:
    """A `max_model_len` above what the model's own configuration allows."""
    folder = found_path(entry.source, roots)
    # These replace or extend the limit in ways that only vLLM knows.
    is_changed = "hf_overrides" in entry.engine_args or "hf_config_path" in entry.engine_args
    if folder is None or entry.max_model_len is None or is_changed:
        return
    if entry.env.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") not in {None, "0"}:
        return
    limit = _context(folder / "config.json")
    if limit and entry.max_model_len > limit:
        message = f"{entry.max_model_len} is more than the model's own limit {limit}"
        yield FieldError(("max_model_len",), f"{message} (in {folder / 'config.json'})")


def _context(config: Path) -> int:
    """Tokens of context by a model's configuration; 0 where it does not simply say so."""
    try:
        content = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return 0
    if not isinstance(content, dict):
        return 0
    rope = content.get("rope_scaling") or content.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(isinstance(inner, dict) for inner in rope.values()):
        return 0
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        return 0
    limits = [content.get("max_position_embeddings"), content.get("model_max_length")]
    return max((limit for limit in limits if isinstance(limit, int)), default=0)
