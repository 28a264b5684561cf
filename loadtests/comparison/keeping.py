"""Files that are whole at any time, whenever somebody looks or the run ends."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec


def keep(path: Path, report: msgspec.Struct) -> None:
    """Write a report as JSON, in place of an earlier one.

    Raises:
        OSError: it cannot be written there.
    """
    replace(path, lambda new: new.write_bytes(msgspec.json.format(msgspec.json.encode(report))))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside its place, and then put there; its suffix stays.

    Raises:
        OSError: it cannot be written there.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        new = Path(folder, path.name)
        write(new)
        new.replace(path)
