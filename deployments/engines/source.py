"""Where a model's weights are: a path on this node, or a name on a model hub."""

from collections.abc import Iterable
from pathlib import Path

from gateway.errors import ConfigError


def resolve_source(source: str, roots: Iterable[Path]) -> str:
    """The absolute path of `source` under the first of `roots` that has it, else `source` itself.

    Raises:
        ConfigError: `source` can only be a path (it starts with `.`, `/` or `~`), and is not there.
    """
    path = Path(source).expanduser()
    searched = [Path()] if path.is_absolute() else list(roots)
    for root in searched:
        if (found := root / path).is_dir():
            return str(found.resolve())
    if path.is_absolute() or source.startswith("."):
        places = ", ".join(str((root / path).absolute()) for root in searched)
        raise ConfigError(
            f"source: no model directory {source!r} on this node (looked at {places})"
        )
    return source
