"""YAML file that knows the line of each value."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway.config.references import MASK
from gateway.config.secrets import has_secret_name
from gateway.config.strict import ConfigPath, FieldError, format_value
from gateway.errors.startup import ConfigError

MAX_FILE_BYTES = 4 << 20
MAX_VALUES = 200_000
"""Values of a file, those of anchors counted wherever an alias repeats them."""
MAX_INTEGER = 2**53
"""Largest whole number that every JSON parser on the way reads exactly."""

INTEGER = "tag:yaml.org,2002:int"

EMPTY = {"", "~", "null", "Null", "NULL"}

_SURPRISING = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+)")
"""Whole numbers that YAML 1.1 reads in base 8 or in base 60."""
_EXPONENT = re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+")


@dataclass(frozen=True, slots=True)
class YamlFile:
    """Content of a file, and where each part of it is."""

    content: object
    mistakes: tuple[FieldError, ...]
    """Keys that a mapping repeats, and numbers that mean something other than they seem to."""
    _root: yaml.Node | None

    @classmethod
    def read(cls, path: Path) -> "YamlFile":
        """Read a file.

        Raises:
            ConfigError: the file cannot be read, or is not YAML.
        """
        try:
            loader = yaml.SafeLoader(_text(path))
            root = loader.get_single_node()
            _check_size(path, root)
            mistakes = (*_cycles(root), *_repeated_keys(root), *_surprising_numbers(root))
            # Merges are carried out here, in the nodes themselves.
            return cls(None if root is None else loader.construct_document(root), mistakes, root)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            position = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            raise ConfigError(f"{path}{position}: not YAML: {error.problem}") from None
        except RecursionError:
            raise ConfigError(f"{path}: not a config: it is nested too deeply") from None
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None

    def explained(self, error: FieldError) -> FieldError:
        """The error with a hint how to write the value, where YAML reads it in a surprising way."""
        written = self.written(error.path)
        if written is None or not error.message.startswith("should be "):
            return error
        found = f"should be text, found {format_value(self._value(error.path))}"
        if error.message.startswith(found) and written not in EMPTY:
            hint = f'should be text, found {written} (put it in quotes: "{written}")'
            return FieldError(error.path, hint)
        return FieldError(error.path, f"{error.message}{text_hint(written)}")

    def line(self, path: ConfigPath) -> int:
        """Line of a path, or of the nearest enclosing part that the file has."""
        return self._found(path)[1]

    def written(self, path: ConfigPath) -> str | None:
        """Unquoted value or key at a path, as it is written; None for anything else."""
        node = self._found(path)[0]
        is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return str(node.value) if is_plain and node is not None else None

    def _value(self, path: ConfigPath) -> object:
        value: Any = self.content
        for step in path:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list):
                value = value[int(step)]
        return value

    def _found(self, path: ConfigPath) -> tuple[yaml.Node | None, int]:
        """Node at a path, None if the file has none, and the line of what is nearest to it."""
        node, line = self._root, 1
        for step in path:
            found = _child(node, step)
            if found is None:
                return None, line
            node, line = found
        return node, line


def _child(node: yaml.Node | None, step: int | str) -> tuple[yaml.Node, int] | None:
    """Node at a step inside a node, and its line."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        child: yaml.Node = node.value[step]
        return child, child.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        # A merged key comes before the mapping's own, which replaces it.
        found = [pair for pair in node.value if pair[0].value == step]
        if found:
            return found[-1][1], found[-1][0].start_mark.line + 1
    return None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{content[error.start]:02x} in line {line}"
        raise ConfigError(f"{path}: not YAML: not UTF-8 ({wrong})") from None


def _check_size(path: Path, root: yaml.Node | None) -> None:
    """Refuse aliases that together stand for more than any config needs."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is None:
            sizes[id(node)] = 0  # for an alias inside it
            sizes[id(node)] = known = 1 + sum(map(size, _children(node)))
        return known

    if root is not None and size(root) > MAX_VALUES:
        raise ConfigError(f"{path}: its aliases stand for more than {MAX_VALUES:,} values")


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return []


def _nodes(root: yaml.Node | None) -> Iterator[tuple[ConfigPath, yaml.Node]]:
    """All nodes with their paths; those that aliases repeat only once."""
    seen: set[int] = set()
    todo: list[tuple[ConfigPath, yaml.Node | None]] = [((), root)]
    while todo:
        path, node = todo.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield path, node
        todo.extend(((*path, step), child) for step, child in reversed(_steps(node)))


def _cycles(root: yaml.Node | None) -> Iterator[FieldError]:
    """Values that contain themselves, through an alias."""
    done: set[int] = set()
    open_: set[int] = set()

    def visit(node: yaml.Node, path: ConfigPath) -> Iterator[FieldError]:
        if id(node) in open_:
            yield FieldError(path, "contains itself")
        if id(node) in open_ or id(node) in done:
            return
        open_.add(id(node))
        for step, child in _steps(node):
            yield from visit(child, (*path, step))
        open_.remove(id(node))
        done.add(id(node))

    if root is not None:
        yield from visit(root, ())


def _steps(node: yaml.Node) -> list[tuple[int | str, yaml.Node]]:
    """Parts of a node, each with its key or position."""
    if isinstance(node, yaml.SequenceNode):
        return list(enumerate(node.value))
    if isinstance(node, yaml.MappingNode):
        return [(str(key.value), child) for key, child in node.value]
    return []


def _repeated_keys(root: yaml.Node | None) -> Iterator[FieldError]:
    """Keys that a mapping itself repeats: YAML would silently drop all but the last.

    A key that is merged (`<<`) and written again is none of them: it replaces the merged one.
    """
    for path, node in _nodes(root):
        if isinstance(node, yaml.MappingNode):
            keys = [str(key.value) for key, _ in node.value]
            for key in sorted({k for k in keys if keys.count(k) > 1}):
                hint = ": merge several mappings with `<<: [*a, *b]`" if key == "<<" else ""
                yield FieldError((*path, key), f"appears twice{hint}")


def _surprising_numbers(root: yaml.Node | None) -> Iterator[FieldError]:
    for path, node in _nodes(root):
        if not isinstance(node, yaml.ScalarNode) or node.tag != INTEGER:
            continue
        text = str(node.value)
        value = yaml.SafeLoader("").construct_yaml_int(node)
        is_wrong = _SURPRISING.fullmatch(text) or abs(value) > MAX_INTEGER
        if is_wrong and has_secret_name(path):
            yield FieldError(path, f"{MASK} is a number to YAML: put it in quotes")
        elif _SURPRISING.fullmatch(text):
            base = "60" if ":" in text else "8"
            message = f'{text} is {value} to YAML, in base {base}: write {value}, or "{text}"'
            yield FieldError(path, message)
        elif abs(value) > MAX_INTEGER:
            yield FieldError(path, f"{text[:40]} is too large")


def text_hint(written: str) -> str:
    """What to do about an unquoted value that YAML reads as text although it looks like a number.

    Empty for any other value.
    """
    if not _EXPONENT.fullmatch(written):
        return ""
    return f" (YAML reads {written} as text: write {float(written):.12g})"
