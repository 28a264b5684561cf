"""Suspends contenders that are not being measured (SIGSTOP).

A Ray cluster keeps a tenth of a core busy even without requests. With all contenders but one
suspended, each is measured with its own background work only. Contenders do not notice the pause:
everything that they wait for is suspended with them, and timers that became due meanwhile fire
once, before the measurement. Targets that were running before are never suspended.

A suspended process cannot notice that the command that suspended it was killed. So a `Watchdog` in
a session of its own then resumes and ends it; `python -m loadtests.comparison.suspend` is its
process.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import msgspec
import psutil

from deployments.local import processes
from loadtests.launch import PROJECT_ROOT, STOP_TIMEOUT_S, Unavailable, await_answer
from loadtests.targets import LoadTarget

SETTLE_S = 1.0
"""Time for timers that became due during the pause."""
RESUME_TIMEOUT_S = 30.0


def processes_of(target: LoadTarget) -> list[psutil.Process]:
    """All processes of a target, its engine's included; none if it was running before."""
    if not target.is_started_here:
        return []
    return [*target.path_processes(), *target.other_processes(), *target.engine_processes()]


@contextmanager
def suspended(target: LoadTarget) -> Iterator[None]:
    """Suspend a target; it is resumed at the end, so that it can be stopped in order."""
    watchdog = Watchdog()
    try:
        watchdog.watch(processes_of(target))
        _suspend(target)  # in here: a signal may end this process halfway
        yield
    finally:
        _resume(target)
        _settle()  # SIGTERM would go to whichever thread runs first, not to the main one
        watchdog.dismiss()


def start_suspended(
    stack: ExitStack,
    name: str,
    contender: Callable[[], AbstractContextManager[LoadTarget]],
    missing: dict[str, str],
) -> LoadTarget | None:
    """Start a contender and suspend it; None, and a reason in `missing`, if it does not start."""
    try:
        target = stack.enter_context(contender())
    except Unavailable as error:
        missing[name] = str(error)
        return None
    stack.enter_context(suspended(target))
    return target


@contextmanager
def resumed(target: LoadTarget) -> Iterator[None]:
    """Let a suspended target run, once it answers.

    Raises:
        Unavailable: it no longer answers.
    """
    _resume(target)
    try:
        _settle()
        if not (carriers := target.path_processes()):
            raise Unavailable("its processes have ended")
        await_answer(target.port, carriers[0], target.model, RESUME_TIMEOUT_S)
        yield
    finally:
        _suspend(target)


def _settle() -> None:
    time.sleep(SETTLE_S)  # noqa: TID251 - no event loop runs here


def _suspend(target: LoadTarget) -> None:
    for process in processes_of(target):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()


def _resume(target: LoadTarget) -> None:
    for process in processes_of(target):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


class _WatchedProcess(msgspec.Struct, frozen=True):
    """A process, distinct from a later one with the same id."""

    id: int
    created_s: float

    @property
    def process(self) -> psutil.Process | None:
        """The process, while it lives."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.id)
            return found if found.create_time() == self.created_s else None
        return None


class Watchdog:
    """Process that resumes and ends others once this process has ended without dismissing it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.comparison.suspend"],
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,  # a signal may end all of the command's session
        )

    def watch(self, watched: Iterable[psutil.Process]) -> None:
        """Set the processes to end, in place of earlier ones."""
        found = []
        for process in watched:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(_WatchedProcess(process.pid, process.create_time()))
        self._send(found)

    def dismiss(self) -> None:
        """End the watchdog; it ends nothing."""
        self._send([])
        self._process.communicate()

    def _send(self, watched: list[_WatchedProcess]) -> None:
        if self._process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):  # it was ended from outside
            self._process.stdin.write(msgspec.json.encode(watched) + b"\n")
            self._process.stdin.flush()


def main() -> None:
    """Wait for the end of standard input, then end the processes of its last line."""
    last = b"[]"
    for line in sys.stdin.buffer:
        last = line
    watched = msgspec.json.decode(last, type=list[_WatchedProcess])
    alive = [process for each in watched if (process := each.process)]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()  # only then does it handle the signal
    processes.end(alive, STOP_TIMEOUT_S)


if __name__ == "__main__":
    main()
