"""Temporary files of one local cluster: in one directory of its own, removed with the cluster.

Ray, HAProxy, vLLM and all other processes of the cluster put theirs there, because their
environment says so; nothing of any other cluster on the machine is in it.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from gateway import environment
from gateway.local_files import KEPT_LOGS, TEMPORARY_PREFIX, logs_in


def make_directory() -> Path:
    """A new directory, which only this user can read.

    Its path is short: the paths of sockets in it may have 107 characters.
    """
    return Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))


def variables(directory: Path) -> dict[str, str]:
    """Environment variables that keep temporary files in the directory."""
    haproxy = directory / "hp"
    return {
        environment.TEMPORARY: str(directory),
        environment.RAY_TEMPORARY: str(directory),
        environment.HAPROXY_CONFIG_FILE: str(haproxy / "haproxy.cfg"),
        environment.HAPROXY_SOCKET: str(haproxy / "admin.sock"),
        environment.HAPROXY_METRICS_SOCKET: str(haproxy / "metrics.sock"),
        environment.HAPROXY_STATE_BASE: str(haproxy),
        environment.HAPROXY_STATE_FILE: str(haproxy / "server-state"),
    }


def remove(directory: Path, keep_logs_in: Path) -> None:
    """Remove a directory that `make_directory` made; its logs replace those kept before."""
    if not directory.name.startswith(TEMPORARY_PREFIX) or not _is_own(directory):
        return
    logs = logs_in(directory)
    if logs.is_dir():
        kept = keep_logs_in / KEPT_LOGS
        shutil.rmtree(kept, ignore_errors=True)
        with contextlib.suppress(OSError):
            shutil.copytree(logs, kept, ignore_dangling_symlinks=True)
    shutil.rmtree(directory, ignore_errors=True)


def _is_own(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        status = directory.lstat()
        return directory.is_dir() and not directory.is_symlink() and status.st_uid == os.getuid()
    return False
