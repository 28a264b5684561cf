"""Watchdog of a replica: a small process beside it that kills it, with all that it has started.

A replica that is stopped or spins can neither answer Serve's health checks nor end itself. Serve
(2.60) would wait for three timeouts, then for a graceful stop, and only then kill it: minutes in
which its GPU is of no use. Nor do vLLM's processes end with a replica that is killed: what is left
of them would keep the GPU's memory.

The replica writes a sign of life every second. Its watchdog kills it after `limit_s` without one,
or if one of its child processes has been stopped (SIGSTOP) for as long. However the replica ends,
the watchdog kills the children that outlive it. Serve replaces a dead replica at once.

Seconds in which the watchdog itself did not run, as in a suspended container, do not count.
"""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

import psutil

PERIOD_S = 1.0
"""Time between two signs of life."""
LOOK_PERIODS = 5
"""Periods between two looks at the child processes."""
END_S = 30
"""Time for a replica to end that has dismissed its watchdog."""
GRACE_S = 5
"""Time for the children of a replica that has ended, to end by themselves."""


class ReplicaWatchdog:
    """The watchdog of this process, until `stop`; `label` names the process in its message."""

    def __init__(self, label: str, limit_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(os.getpid()), str(limit_s), label],
            stdin=subprocess.PIPE,
            bufsize=0,
        )
        self._signing = asyncio.create_task(self._show_life(), name="signs-of-life")

    async def stop(self) -> None:
        """Dismiss the watchdog, once nothing is left that it could kill."""
        self._signing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._signing
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def _show_life(self) -> None:
        pipe = self._process.stdin
        while pipe is not None:
            with contextlib.suppress(OSError):  # without a watchdog, Serve's checks remain
                pipe.write(b".")
            await asyncio.sleep(PERIOD_S)


class _Patient:
    """The watched process and its children."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._children: list[psutil.Process] = []
        self._stopped_looks: dict[psutil.Process, int] = {}

    @property
    def is_alive(self) -> bool:
        """Whether the watched process lives; its watchdog is a child of it."""
        return os.getppid() == self._process.pid

    def look(self) -> float:
        """Look at the children; for how many seconds one of them has been stopped."""
        with contextlib.suppress(psutil.Error):
            children = self._process.children(recursive=True)
            self._children = [child for child in children if child.pid != os.getpid()]
        looks = self._stopped_looks
        self._stopped_looks = {
            child: looks.get(child, -1) + 1 for child in self._children if _is_stopped(child)
        }
        return max(self._stopped_looks.values(), default=0) * LOOK_PERIODS * PERIOD_S

    def kill(self) -> None:
        """Kill the process and its children."""
        self.look()
        _kill([self._process, *self._children])

    def clean_up(self) -> None:
        """Kill the children that outlive the process, once it has ended."""
        deadline_s = time.monotonic() + END_S
        while self.is_alive and time.monotonic() < deadline_s:  # it has dismissed its watchdog
            select.select([], [], [], PERIOD_S / 10)
        _, alive = psutil.wait_procs(self._children, timeout=GRACE_S)
        _kill(alive)


def watch(pid: int, limit_s: float, label: str) -> None:
    """Watch the parent process until it ends, or hangs and is killed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends after the replica, and because of that
    patient = _Patient(pid)
    patient.look()
    silent_s, period = 0.0, 0
    while patient.is_alive:
        ready, _, _ = select.select([0], [], [], PERIOD_S)
        if ready and not os.read(0, 4096):
            break
        silent_s = 0.0 if ready else silent_s + PERIOD_S
        period += 1
        stopped_s = patient.look() if period % LOOK_PERIODS == 0 else 0.0
        if max(silent_s, stopped_s) >= limit_s:
            what = "it" if silent_s >= limit_s else "one of its processes"
            sys.stderr.write(
                f"{label}: {what} has not responded for {limit_s:g} s; killing process {pid} and"
                " its children, upon which Serve starts another replica\n"
            )
            patient.kill()
            return
    patient.clean_up()


def _is_stopped(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP})
    return False


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
