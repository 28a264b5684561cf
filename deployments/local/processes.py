"""Processes of a local cluster: found by the session they share, and ended reliably."""

import contextlib
import errno
import json
import os
import random
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from deployments.local.private_files import write_private
from gateway.child_process import module_command, module_environment

KILL_TIMEOUT_S = 10
DRAFT_SUFFIX = ".draft"
"""Of a session's file while it is being written."""
OWN_PORTS = range(20_000, 30_000)
"""Below the ports that kernels assign themselves (from 32768 by default)."""


@dataclass(frozen=True, slots=True)
class Session:
    """A POSIX session, whose leader may have ended while other members live.

    Ray's processes keep the session they are started in, whatever else they change about
    themselves (they overwrite their command line and their environment).
    """

    id: int
    """Process id of the leader."""
    created_s: float
    """Start time of the leader, to distinguish it from a later process with the same id."""
    directory: str = ""
    """Directory of its temporary files."""

    @classmethod
    def led_by(cls, leader: int, directory: str = "") -> Self:
        """The session of a running leader."""
        return cls(leader, psutil.Process(leader).create_time(), directory)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a session that `write` has written."""
        return cls(**json.loads(file.read_text()))

    def write(self, file: Path) -> None:
        """Write the session to a file, at once or not at all, for cleaning up after a crash."""
        draft = file.with_suffix(DRAFT_SUFFIX)
        write_private(draft, json.dumps(asdict(self)))
        draft.replace(file)

    @property
    def leader(self) -> psutil.Process | None:
        """The leader, while it lives."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.id)
            if process.create_time() == self.created_s:
                return process
        return None

    @property
    def members(self) -> list[psutil.Process]:
        """All living processes of the session."""
        if self.leader is None and psutil.pid_exists(self.id):
            return []  # another process has the id now, so no member is left
        return [process for process in psutil.process_iter() if self._has(process)]

    def _has(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            is_alive = process.status() != psutil.STATUS_ZOMBIE
            return is_alive and os.getsid(process.pid) == self.id
        return False


def end(processes: Sequence[psutil.Process], timeout_s: float) -> None:
    """Terminate processes, and kill those that are left after `timeout_s`."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=KILL_TIMEOUT_S)


def spawn_leader(
    module: str, arguments: Sequence[str], env: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Run a Python module as the leader of a new session, with a pipe as its standard input.

    The pipe closes when this process ends, for whatever reason: so the leader notices.
    """
    return subprocess.Popen(
        module_command(module, *arguments),
        env=module_environment(os.environ | env),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def port_holder(host: str, port: int) -> str | None:
    """Description of the process that listens on a port; None if the port is free.

    Raises:
        OSError: the address cannot be listened on for another reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return None
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and port in connection.laddr:
            return _described(connection.pid)
    return "a process of another user"


def _described(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return f"process {pid} ({process.name()}: {' '.join(process.cmdline())[:120]})"
    return f"process {pid}"


def free_ports(first: int, last: int, size: int) -> range:
    """The first `size` consecutive ports from `first` to `last` on which no process listens now.

    Raises:
        OSError: there are none.
    """
    listeners = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
    taken = {part for listener in listeners for part in listener.laddr}
    for start in range(first, last - size + 2, size):
        ports = range(start, start + size)
        if taken.isdisjoint(ports):
            return ports
    raise OSError(errno.EADDRINUSE, f"no {size} free ports from {first} to {last}")


def free_port() -> int:
    """A TCP port on which no process listens now, and that the kernel does not assign later.

    A port that the kernel assigns itself, to a process that binds port 0 or connects, may belong to
    one of Ray's many connections by the time our server binds it.

    Raises:
        OSError: there is none.
    """
    rng = random.SystemRandom()  # two processes must not choose the same
    for _ in OWN_PORTS:
        port = rng.choice(OWN_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise OSError(errno.EADDRINUSE, f"no free port from {OWN_PORTS[0]} to {OWN_PORTS[-1]}")
