"""Files of the gateways that this user has started here, named by their outer processes.

`<pid>.json` says which session a gateway's processes share, `<pid>.yaml` is its config. Both are
removed when it has ended; those of one that was killed, by the next start. They are in `.run` of
the repository, or below `~/.local/state` if the package is installed without it.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import yaml

from deployments.local import processes, temporary
from gateway.local_files import KEPT_LOGS, run_directory

RUN_DIRECTORY = run_directory(os.environ)
LOGS = RUN_DIRECTORY / KEPT_LOGS
LEFTOVER_TIMEOUT_S = 5
ENDS = (".json", ".yaml", processes.DRAFT_SUFFIX)


def known_sessions(run_directory: Path) -> Iterator[tuple[Path, processes.Session]]:
    """The sessions with a file, each with it; a file that cannot be read is left out."""
    for file in run_directory.glob("*.json"):
        if session := _read(file):
            yield file, session


def port_of(file: Path) -> int | None:
    """Port of the gateway whose session is in `file`; None if its config cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return int(yaml.safe_load(file.with_suffix(".yaml").read_text())["http_options"]["port"])
    return None


def clean_up(run_directory: Path) -> None:
    """Remove the files that gateways left when they were killed, but none of one that lives."""
    for file, session in known_sessions(run_directory):
        if session.leader is None and not session.members:
            remove(file, session.directory)
    for file in (each for end in ENDS for each in run_directory.glob(f"*{end}")):
        # What was written before its gateway had a session, or not to its end.
        is_known = _read(file.with_suffix(".json")) is not None
        if not is_known and file.stem.isdecimal() and not psutil.pid_exists(int(file.stem)):
            remove(file.with_suffix(".json"))


def remove(file: Path, directory: str = "") -> None:
    """Remove all files of a session that has ended, and its temporary directory."""
    for end in ENDS:
        file.with_suffix(end).unlink(missing_ok=True)
    if directory:
        temporary.remove(Path(directory), file.parent)


def remove_as_orphan(file: Path) -> None:
    """Remove this session's files, unless the outer process lives, which will."""
    if psutil.pid_exists(int(file.stem)) or (session := _read(file)) is None:
        return
    others = [process for process in session.members if process.pid != os.getpid()]
    processes.end(others, LEFTOVER_TIMEOUT_S)
    remove(file, session.directory)


def _read(file: Path) -> processes.Session | None:
    try:
        return processes.Session.read(file)
    except (OSError, ValueError, TypeError):
        return None  # removed, or not written to its end
