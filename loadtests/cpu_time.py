"""CPU time of a changing set of processes."""

from collections.abc import Callable, Iterable, Sequence

import psutil

from loadtests.launch import has_ended

Processes = Callable[[], Sequence[psutil.Process]]
"""Returns the processes that run now."""


class CpuTime:
    """CPU time from now on, counted process by process, as some may end and others start."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._before_s = _taken_s(processes())

    @property
    def spent_s(self) -> float:
        """User and system time since then, without processes that have ended."""
        now_s = _taken_s(self._processes())
        return sum(taken_s - self._before_s.get(each, 0.0) for each, taken_s in now_s.items())

    @property
    def ended(self) -> list[int]:
        """Ids of processes that have ended since."""
        return [process.pid for process in self._before_s if has_ended(process)]


def _taken_s(processes: Iterable[psutil.Process]) -> dict[psutil.Process, float]:
    """CPU time of each since its start; a process that has just ended is left out."""
    taken_s: dict[psutil.Process, float] = {}
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        taken_s[process] = times.user + times.system
    return taken_s
