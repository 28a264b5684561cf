"""CPU time that processes take from now on, while some of them end and others begin."""

from collections.abc import Callable, Iterable, Sequence

import psutil

from loadtests.launch import has_ended

Processes = Callable[[], Sequence[psutil.Process]]
"""Processes as they are when one asks."""


class CpuTime:
    """Counts process by process: one that has ended takes none of the others' time with it."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._before_s = _taken_s(processes())

    @property
    def spent_s(self) -> float:
        """User and system time since; all of it where a process has begun since.

        What a process took that has ended is not known any more, and not in it.
        """
        now_s = _taken_s(self._processes())
        return sum(taken_s - self._before_s.get(each, 0.0) for each, taken_s in now_s.items())

    @property
    def ended(self) -> list[int]:
        """Ids of processes that were there at first and have ended."""
        return [process.pid for process in self._before_s if has_ended(process)]


def _taken_s(processes: Iterable[psutil.Process]) -> dict[psutil.Process, float]:
    """Since the start of each; those that have just gone are left out."""
    taken_s: dict[psutil.Process, float] = {}
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        taken_s[process] = times.user + times.system
    return taken_s
