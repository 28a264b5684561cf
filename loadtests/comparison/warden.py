"""Ends a contender that rests when the command that has stopped it is gone, however it went.

A stopped process does not notice that nobody is left to wake it up. So a `Warden` in a session of
its own is told whom to wake up and end, and does so unless it is dismissed before its standard
input closes. `python -m loadtests.comparison.warden` is that process.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterable

import msgspec
import psutil

from deployments.local import processes
from loadtests.launch import PROJECT_ROOT, STOP_TIMEOUT_S


class Ward(msgspec.Struct, frozen=True):
    """A process, told from a later one with the same id."""

    id: int
    created_s: float

    @classmethod
    def of(cls, process: psutil.Process) -> "Ward":
        """One that runs, or has run."""
        return cls(process.pid, process.create_time())

    @property
    def process(self) -> psutil.Process | None:
        """The process, while it lives."""
        try:
            found = psutil.Process(self.id)
        except psutil.NoSuchProcess:
            return None
        return found if found.create_time() == self.created_s else None


class Warden:
    """The process that waits, as the command sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.comparison.warden"],
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,  # what ends the command may be meant for all of its session
        )

    def watch(self, wards: Iterable[psutil.Process]) -> None:
        """Whom to end from now on, in place of those told before."""
        told = []
        for process in wards:
            with contextlib.suppress(psutil.NoSuchProcess):
                told.append(Ward.of(process))
        self._tell(told)

    def dismiss(self) -> None:
        """Nobody has to be ended any more."""
        self._tell([])
        self._process.communicate()

    def _tell(self, wards: list[Ward]) -> None:
        if self._process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):  # somebody has ended it: then there is none
            self._process.stdin.write(msgspec.json.encode(wards) + b"\n")
            self._process.stdin.flush()


def main() -> None:
    """Read who is watched, and end them when there is no more to read."""
    told = b"[]"
    for line in sys.stdin.buffer:
        told = line
    wards = msgspec.json.decode(told, type=list[Ward])
    alive = [process for ward in wards if (process := ward.process)]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()  # only then does it learn of it
    processes.end(alive, STOP_TIMEOUT_S)


if __name__ == "__main__":
    main()
