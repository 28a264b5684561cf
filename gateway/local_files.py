"""Where gateways that `gateway serve` starts keep files on this machine, and their logs."""

import platform
from collections.abc import Mapping
from pathlib import Path

from gateway.child_process import IS_SOURCE_TREE, ROOT

STATE_HOME = "XDG_STATE_HOME"
DATA_HOME = "XDG_DATA_HOME"
STATE_DIRECTORY = "ray-llm-gateway"
TEMPORARY_PREFIX = "gw-"
"""Beginning of the name of a running gateway's directory of temporary files."""
KEPT_LOGS = "logs"
"""Directory, beside the files of running gateways, with the logs of the one that ended last."""


def run_directory(
    environ: Mapping[str, str], *, root: Path = ROOT, is_source_tree: bool = IS_SOURCE_TREE
) -> Path:
    """The directory of files of running gateways, which is not beside installed code.

    It has this machine's name: a home directory may be on a volume that machines share.
    """
    if is_source_tree:
        return root / ".run"
    state = environ.get(STATE_HOME) or Path("~/.local/state").expanduser()
    return Path(state) / STATE_DIRECTORY / platform.node()


def data_directory(environ: Mapping[str, str]) -> Path:
    """The directory of what a gateway keeps for this user, unless its config names another."""
    data = environ.get(DATA_HOME) or Path("~/.local/share").expanduser()
    return Path(data) / STATE_DIRECTORY


def logs_in(directory: Path) -> Path:
    """Directory of Ray's logs in a gateway's directory of temporary files."""
    return directory / "ray" / "session_latest" / "logs"
