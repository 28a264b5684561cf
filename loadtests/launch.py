"""Processes that answer requests on a port: started, waited for, stopped for certain."""

import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

from deployments.local import processes

PROJECT_ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
MODEL = "sim"
ROUTE = "/v1/chat/completions"
START_TIMEOUT_S = 360
STOP_TIMEOUT_S = 60
SWEEP_TIMEOUT_S = 5
TOLD_CHARACTERS = 2000
"""Of what a process said before it failed."""


class Unavailable(Exception):
    """A target cannot be had here; the message says why."""


def end_in_order() -> None:
    """Have SIGTERM and SIGHUP raise `SystemExit`, so that everything started is stopped."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, leave)


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[psutil.Process]:
    """A process, ended when we leave; what it said is in an `Unavailable` raised meanwhile."""
    with logged(command, environment) as (process, _):
        yield process


@contextmanager
def leading(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[tuple[psutil.Process, processes.Session, IO[bytes]]]:
    """The same as `logged` for the leader of a session: all others of it end after the leader.

    The leader's standard input closes when this process goes, however it goes.
    """
    with logged(command, environment, leads=True) as (process, log):
        session = processes.Session.led_by(process.pid)
        try:
            yield process, session, log
        finally:
            processes.end([process], STOP_TIMEOUT_S)
            processes.end(session.members, SWEEP_TIMEOUT_S)


@contextmanager
def logged(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, leads: bool = False
) -> Iterator[tuple[psutil.Process, IO[bytes]]]:
    """The same as `running`, with the file that holds what it says."""
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            command,
            cwd=PROJECT_ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE if leads else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=leads,
        )
        try:
            yield process, log
        except Unavailable as error:
            text = "\n".join(lines(log))
            raise Unavailable(f"{error}\n{text[-TOLD_CHARACTERS:]}") from None
        finally:
            _end(process)
            if process.stdin:
                process.stdin.close()


def _end(process: psutil.Process) -> None:
    """End it, and then what it has started and left."""
    started = family(process)[1:]
    processes.end([process], STOP_TIMEOUT_S)
    processes.end(started, SWEEP_TIMEOUT_S)


def family(process: psutil.Process) -> list[psutil.Process]:
    """The process and all it has started, as far as they live."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [process]


def titled(
    session: processes.Session, titles: Sequence[str], *, are: bool = True
) -> list[psutil.Process]:
    """Those of a session whose name or command line has one of the titles in it, or has none."""
    return [process for process in session.members if _is_titled(process, titles) is are]


def _is_titled(process: psutil.Process, titles: Sequence[str]) -> bool:
    try:
        title = f"{process.name()} {' '.join(process.cmdline())}"
    except psutil.Error:
        return False  # it has just gone
    return any(wanted in title for wanted in titles)


def lines(log: IO[bytes]) -> Iterator[str]:
    """What has been said so far."""
    # Without seeking: who writes shares the place in the file, and would write on from there.
    said = os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0)
    return iter(said.decode(errors="replace").splitlines())


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more, waited for or not."""
    try:
        return process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return True


def await_that(
    lack: Callable[[], str], process: psutil.Process, timeout_s: float = START_TIMEOUT_S
) -> None:
    """Wait until nothing is lacking any more; `lack` says in words what is.

    Raises:
        Unavailable: the process ended, or took too long.
    """
    deadline_s = time.monotonic() + timeout_s
    while lacking := lack():
        if has_ended(process):
            raise Unavailable(f"it ended before it was ready: {lacking}")
        if time.monotonic() > deadline_s:
            raise Unavailable(f"it was not ready within {timeout_s:g} s: {lacking}")
        pause()


def await_answer(
    port: int, process: psutil.Process, model: str = MODEL, timeout_s: float = START_TIMEOUT_S
) -> None:
    """Wait until the model answers at a port.

    Raises:
        Unavailable: the process ended, or took too long.
    """
    await_that(lambda: _unanswered(port, model), process, timeout_s)


def await_line(
    beginning: str,
    log: IO[bytes],
    process: psutil.Process,
    timeout_s: float = START_TIMEOUT_S,
) -> str:
    """The first line that begins so, as soon as the process has said it.

    Raises:
        Unavailable: the process ended, or took too long.
    """
    found: list[str] = []

    def lack() -> str:
        found.extend(line for line in lines(log) if line.startswith(beginning))
        return "" if found else f"it has not said {beginning.strip()!r}"

    await_that(lack, process, timeout_s)
    return found[0]


def pause() -> None:
    """Wait a moment before looking again."""
    time.sleep(0.2)  # noqa: TID251 - no event loop runs here


def _unanswered(port: int, model: str) -> str:
    """What came instead of an answer; empty where one came."""
    messages = [{"role": "user", "content": "x"}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": 1})
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("POST", ROUTE, body, {"content-type": "application/json"})
        response = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    else:
        return "" if response.status == 200 else f"{response.status} {response.reason}"
    finally:
        connection.close()
