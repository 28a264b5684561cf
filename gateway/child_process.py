"""How a module of this project is run in a process of its own.

Such a process, and those that it starts, import the same code as this one, and nothing from the
working directory: a package of the user's there may have the name of one of ours.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""Directory that `gateway` and `deployments` are in: the repository, or `site-packages`."""
IS_SOURCE_TREE = (ROOT / "gateway" / "packaged" / "configs").is_symlink()
"""Whether this code is in its repository, where packaged files are links."""
PACKAGES = ("gateway", "deployments")
SAFE_PATH, PYTHON_PATH = "PYTHONSAFEPATH", "PYTHONPATH"


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment(
    environ: Mapping[str, str], *, root: Path = ROOT, is_source_tree: bool = IS_SOURCE_TREE
) -> dict[str, str]:
    """The environment to run a module in; `environ`: this process's."""
    path = environ.get(PYTHON_PATH, "")
    # What is installed is found anyhow, and must not go before the standard library.
    if is_source_tree:
        path = os.pathsep.join([str(root), *filter(None, [path])])
    return {**environ, SAFE_PATH: "1", **({PYTHON_PATH: path} if path else {})}


def shadowing(directory: Path, root: Path = ROOT) -> Path | None:
    """A package or module in `directory` that workers of Ray would import in place of ours.

    Ray puts its working directory on the path of its workers. A directory without `__init__.py`
    does not matter: a package that is further back on the path goes before it.
    """
    if directory.resolve() == root:
        return None
    places = (
        directory / place for name in PACKAGES for place in (f"{name}/__init__.py", f"{name}.py")
    )
    return next((place for place in places if place.is_file()), None)
