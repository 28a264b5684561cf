"""YAML file that knows the line of each value."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from gateway.config.strict import ConfigPath
from gateway.errors import ConfigError


@dataclass(frozen=True, slots=True)
class YamlFile:
    """Content of a file, and where each part of it is."""

    content: object
    _root: yaml.Node | None

    @classmethod
    def read(cls, path: Path) -> "YamlFile":
        """Read a file.

        Raises:
            ConfigError: the file cannot be read, or is not YAML.
        """
        try:
            loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
            root = loader.get_single_node()
            return cls(None if root is None else loader.construct_document(root), root)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            position = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            raise ConfigError(f"{path}{position}: not YAML: {error.problem}") from None
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None

    def repeated_keys(self) -> Iterator[ConfigPath]:
        """Paths of keys that a mapping repeats: YAML would silently drop all but the last."""
        seen: set[int] = set()
        todo: list[tuple[ConfigPath, yaml.Node | None]] = [((), self._root)]
        while todo:
            path, node = todo.pop()
            if id(node) in seen:
                continue  # reached before, through an alias
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                todo.extend(((*path, i), child) for i, child in enumerate(node.value))
            elif isinstance(node, yaml.MappingNode):
                keys = [str(key.value) for key, _ in node.value if key.value != "<<"]
                yield from ((*path, key) for key in sorted({k for k in keys if keys.count(k) > 1}))
                todo.extend(((*path, str(key.value)), child) for key, child in node.value)

    def line(self, path: ConfigPath) -> int:
        """Line of a path, or of the nearest enclosing part that the file has."""
        node, line = self._root, 1
        for step in path:
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
                line = node.start_mark.line + 1
            elif isinstance(node, yaml.MappingNode):
                found = [pair for pair in node.value if pair[0].value == step]
                if not found:
                    break
                key, node = found[-1]
                line = key.start_mark.line + 1
        return line
