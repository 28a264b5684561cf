"""Sessions of processes, ended reliably; ports and their holders."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deployments.local import processes
from deployments.local.processes import Session

CHILD = "import time; time.sleep(600)"
LEADER = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "{CHILD}"])
print(flush=True)
time.sleep(600)
"""


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    """Leader of a session with one more member."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEADER], start_new_session=True, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout
        process.stdout.readline()
        session = Session.led_by(process.pid)
        yield process
        processes.end(session.members, timeout_s=5)


def test_a_session_has_its_leader_and_its_members(leader: subprocess.Popen[bytes]) -> None:
    """Both processes are found, and the test process is not among them."""
    session = Session.led_by(leader.pid)

    assert session.leader == psutil.Process(leader.pid)
    assert len(session.members) == 2
    assert os.getpid() not in {process.pid for process in session.members}


def test_members_that_outlive_their_leader_are_ended(
    leader: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """After a crash the session file is enough to find and end them."""
    note = tmp_path / "note.json"
    Session.led_by(leader.pid).write(note)
    leader.kill()
    leader.wait()

    session = Session.read(note)
    orphans = session.members
    processes.end(orphans, timeout_s=5)

    assert session.leader is None
    assert len(orphans) == 1
    assert session.members == []


def test_a_process_id_used_again_is_not_the_session(leader: subprocess.Popen[bytes]) -> None:
    """An old session file names an id that another process has now: no process is ended."""
    stale = Session(leader.pid, created_s=0.0)

    assert stale.leader is None
    assert stale.members == []


def test_a_taken_port_names_its_holder() -> None:
    """The operator learns which process has the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        holder = processes.port_holder("127.0.0.1", port)

    assert holder
    assert f"process {os.getpid()}" in holder
    assert processes.port_holder("127.0.0.1", port) is None


def test_free_ports_skip_ports_in_use() -> None:
    """Two clusters on one machine get different ports."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        ports = processes.free_ports(port, port + 1000, size=10)

        assert ports[0] > port
        assert len(ports) == 10
        with pytest.raises(OSError, match="no 10 free ports"):
            processes.free_ports(port, port + 9, size=10)


def test_a_free_port_is_outside_the_kernel_s_range() -> None:
    """No other connection can get it before our server binds it."""
    first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()

    with socket.create_server(("", processes.free_port())) as listener:
        port = listener.getsockname()[1]

    assert port < int(first)
