"""What Prometheus has to ask: the metrics agents of Ray clusters on this machine."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

import psutil

from deployments.local.processes import Session

DISCOVERY = "prom_metrics_service_discovery.json"
"""What Ray calls its list of a cluster's agents. That below /tmp/ray is of any cluster there is."""
DIRECTORY_FLAG = "--session_dir="
"""How Ray (2.60) tells a raylet where its cluster keeps such things."""


def sessions_of(notes: Path) -> list[Session]:
    """The sessions that have left a note of themselves in a directory."""
    sessions = []
    for note in notes.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):  # it has just been removed
            sessions.append(Session.read(note))
    return sessions


def lists_of(sessions: Iterable[Session]) -> list[Path]:
    """Where the Ray clusters of these sessions list their agents."""
    lists = {_list_of(process) for session in sessions for process in session.members}
    return sorted(path for path in lists if path is not None)


def agents_of(lists: Iterable[Path]) -> list[str]:
    """The addresses of all agents in these lists; of those that are not there (yet), none."""
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
                return Path(word.removeprefix(DIRECTORY_FLAG)) / DISCOVERY
    return None
