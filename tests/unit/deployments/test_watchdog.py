"""The watchdog of a replica, with processes that take its place."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

PATIENCE_S = 30.0
LIMIT_S = 2.0
REPLICA = """
import asyncio, subprocess, sys, time
from deployments.watchdog import ReplicaWatchdog

async def run(spins):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    watchdog = ReplicaWatchdog("model m: replica r", LIMIT)
    print(child.pid, flush=True)
    if spins:
        time.sleep(600)
    await asyncio.to_thread(sys.stdin.read)
    await watchdog.stop()

asyncio.run(run("spins" in sys.argv))
""".replace("LIMIT", str(LIMIT_S))


class FakeReplica:
    """A process with a child and a watchdog, like a replica with its engine core."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", REPLICA, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[3],
            text=True,
        )
        assert self.process.stdout
        self.child = psutil.Process(int(self.process.stdout.readline()))

    def close(self) -> None:
        """Kill what is left."""
        for process in (self.process, self.child):
            if psutil.pid_exists(process.pid):
                process.kill()
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., FakeReplica]]:
    """Start replicas, which are gone after the test."""
    started: list[FakeReplica] = []

    def start(*arguments: str) -> FakeReplica:
        started.append(FakeReplica(*arguments))
        return started[-1]

    yield start
    for replica in started:
        replica.close()


def pause(seconds: float) -> None:
    """Let other processes work."""
    threading.Event().wait(seconds)


def ended(replica: FakeReplica) -> bool:
    """Whether a replica and its child have ended."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        is_child_gone = not replica.child.is_running() or (
            replica.child.status() == psutil.STATUS_ZOMBIE
        )
        if replica.process.poll() is not None and is_child_gone:
            return True
        pause(0.1)
    return False


def test_a_stopped_replica_is_killed_with_its_children(start: Callable[..., FakeReplica]) -> None:
    """It cannot end itself, and what it has started would keep the GPU."""
    replica = start()
    replica.process.send_signal(signal.SIGSTOP)

    assert ended(replica)
    assert replica.process.returncode == -signal.SIGKILL
    assert replica.process.stderr
    assert "model m: replica r: it has not responded" in replica.process.stderr.read()


def test_a_spinning_replica_is_killed(start: Callable[..., FakeReplica]) -> None:
    """Its event loop shows no sign of life."""
    assert ended(start("spins"))


def test_a_replica_with_a_stopped_child_is_killed(start: Callable[..., FakeReplica]) -> None:
    """An engine core or a worker that is stopped makes the engine useless."""
    replica = start()
    replica.child.send_signal(signal.SIGSTOP)

    assert ended(replica)
    assert replica.process.returncode == -signal.SIGKILL


def test_children_do_not_outlive_a_killed_replica(start: Callable[..., FakeReplica]) -> None:
    """Not even a stopped one, whose end nothing else would notice."""
    replica = start()
    pause(2.0)  # the watchdog has seen the child
    replica.child.send_signal(signal.SIGSTOP)
    replica.process.kill()

    assert ended(replica)


def test_a_working_replica_is_left_alone(start: Callable[..., FakeReplica]) -> None:
    """However long it lives, and whatever it does with its time."""
    replica = start()
    pause(2 * LIMIT_S)
    was_alive = replica.process.poll() is None
    replica.process.communicate("")

    assert was_alive
    assert replica.process.returncode == 0
