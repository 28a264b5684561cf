"""Scrape targets for Prometheus: the metrics agents of Ray clusters on this machine."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

import psutil

from deployments.local.processes import Session

AGENTS_FILE = "prom_metrics_service_discovery.json"
"""Ray's list of a cluster's agents. The one right below /tmp/ray may be of any cluster."""
DIRECTORY_FLAG = "--session_dir="
"""Argument by which Ray (2.60) tells a raylet the directory of its cluster's files."""


def sessions_in(directory: Path) -> list[Session]:
    """Sessions that have written a file into a directory."""
    sessions = []
    for file in directory.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):  # the file has just been removed
            sessions.append(Session.read(file))
    return sessions


def lists_of(sessions: Iterable[Session]) -> list[Path]:
    """Files in which the Ray clusters of these sessions list their agents."""
    lists = {_list_of(process) for session in sessions for process in session.members}
    return sorted(path for path in lists if path is not None)


def agents_of(lists: Iterable[Path]) -> list[str]:
    """Addresses of all agents in these files; those that do not exist (yet) are skipped."""
    agents: list[str] = []
    for path in lists:
        with contextlib.suppress(OSError, ValueError):
            agents += [
                agent for group in json.loads(path.read_text()) for agent in group["targets"]
            ]
    return agents


def _list_of(process: psutil.Process) -> Path | None:
    with contextlib.suppress(psutil.Error):
        for word in process.cmdline():
            if word.startswith(DIRECTORY_FLAG):
                return Path(word.removeprefix(DIRECTORY_FLAG)) / AGENTS_FILE
    return None
