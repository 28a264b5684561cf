"""Contenders at rest: stopped (SIGSTOP) while it is another one's turn.

A Ray cluster keeps a tenth of a core busy even when nobody asks it anything. With all contenders
stopped but one, each is measured with its own background work and nobody else's. They do not see
the pause: what they wait for has been stopped with them, and a clock that has jumped lets overdue
timers run once, which is over before anything is measured.

What was not started here is never stopped.
"""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from loadtests.comparison.warden import Warden
from loadtests.launch import Unavailable, await_answer
from loadtests.targets import Target

SETTLE_S = 1.0
"""For timers that have become due meanwhile."""
WAKE_TIMEOUT_S = 30.0


def processes_of(target: Target) -> list[psutil.Process]:
    """All there are of a target, its own engine's included; none of what is not ours to stop."""
    if not target.is_started_here:
        return []
    return [*target.path_processes(), *target.other_processes(), *target.engine_processes()]


@contextmanager
def resting(target: Target) -> Iterator[None]:
    """Stop all processes of a target until we leave, so that it can be ended in order.

    Where we are gone without leaving, it is ended by its `Warden`.
    """
    warden = Warden()
    try:
        warden.watch(processes_of(target))
        _suspend(target)  # within: we may be told to end in the middle of it
        yield
    finally:
        _resume(target)
        _settle()  # a signal to end would go to whichever thread runs first, not to the main one
        warden.dismiss()


@contextmanager
def awake(target: Target) -> Iterator[None]:
    """Let a resting target run until we leave, from when it answers.

    Raises:
        Unavailable: it does not answer any more.
    """
    _resume(target)
    try:
        _settle()
        _await_answer(target)
        yield
    finally:
        _suspend(target)


def _await_answer(target: Target) -> None:
    carriers = target.path_processes()
    if not carriers:
        raise Unavailable("its processes have ended")
    await_answer(target.port, carriers[0], target.model, WAKE_TIMEOUT_S)


def _settle() -> None:
    time.sleep(SETTLE_S)  # noqa: TID251 - no event loop runs here


def _suspend(target: Target) -> None:
    for process in processes_of(target):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()


def _resume(target: Target) -> None:
    for process in processes_of(target):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
