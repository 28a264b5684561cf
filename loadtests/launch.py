"""Processes that serve a port: started, awaited until ready, and stopped reliably."""

import contextlib
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
from loadtests.loadgen.client import CHAT_PATH

PROJECT_ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
MODEL = "sim"
START_TIMEOUT_S = 360
STOP_TIMEOUT_S = 60
SWEEP_TIMEOUT_S = 5
LOG_TAIL_CHARACTERS = 2000
"""End of a failed process's output that is shown as the reason."""


class Unavailable(Exception):
    """A target cannot be started or reached; the message says why."""


def exit_on_signals() -> None:
    """Make SIGTERM and SIGHUP raise `SystemExit`, so that everything started is stopped."""

    def exit_with(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, exit_with)


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[psutil.Process]:
    """A process that ends with the context; an `Unavailable` raised there gets its output."""
    with logged(command, environment) as (process, _):
        yield process


@contextmanager
def session_leader(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[tuple[psutil.Process, processes.Session, IO[bytes]]]:
    """A process with its output, as the leader of a session that ends after it.

    The leader's standard input closes when this process ends, for whatever reason.
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
    """A process as in `running`, and the file with its output."""
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
            text = "\n".join(log_lines(log))
            raise Unavailable(f"{error}\n{text[-LOG_TAIL_CHARACTERS:]}") from None
        finally:
            _end(process)
            if process.stdin:
                process.stdin.close()


def _end(process: psutil.Process) -> None:
    """End a process, and then its orphaned children."""
    started = process_tree(process)[1:]
    processes.end([process], STOP_TIMEOUT_S)
    processes.end(started, SWEEP_TIMEOUT_S)


def process_tree(process: psutil.Process) -> list[psutil.Process]:
    """The process and all its living descendants."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [process]


def processes_titled(
    session: processes.Session, titles: Sequence[str], *, include: bool = True
) -> list[psutil.Process]:
    """Processes of a session with one of the titles in their command line; or those with none."""
    return [process for process in session.members if _is_titled(process, titles) is include]


def processes_named(session: processes.Session, name: str) -> list[psutil.Process]:
    """Processes of a session that run the program of that name."""
    found = []
    for process in session.members:
        with contextlib.suppress(psutil.Error):
            if process.name() == name:
                found.append(process)
    return found


def _is_titled(process: psutil.Process, titles: Sequence[str]) -> bool:
    try:
        title = f"{process.name()} {' '.join(process.cmdline())}"
    except psutil.Error:
        return False  # it has just ended
    return any(wanted in title for wanted in titles)


def log_lines(log: IO[bytes]) -> Iterator[str]:
    """Lines of the output so far."""
    # Without seeking: the writer shares the file offset, and would write on from there.
    output = os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0)
    return iter(output.decode(errors="replace").splitlines())


def has_ended(process: psutil.Process) -> bool:
    """Whether it has ended, reaped or not."""
    try:
        return process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return True


def await_ready(
    missing: Callable[[], str], process: psutil.Process, timeout_s: float = START_TIMEOUT_S
) -> None:
    """Wait until `missing` returns nothing; it names what is missing.

    Raises:
        Unavailable: the process ended or took too long.
    """
    deadline_s = time.monotonic() + timeout_s
    while reason := missing():
        if has_ended(process):
            raise Unavailable(f"it ended before it was ready: {reason}")
        if time.monotonic() > deadline_s:
            raise Unavailable(f"it was not ready within {timeout_s:g} s: {reason}")
        pause()


def await_answer(
    port: int,
    process: psutil.Process,
    model: str = MODEL,
    timeout_s: float = START_TIMEOUT_S,
    api_key: str = "",
) -> None:
    """Wait until a model answers at a port.

    Raises:
        Unavailable: the process ended or took too long.
    """
    await_ready(lambda: chat_failure(port, model, api_key), process, timeout_s)


def await_line(
    beginning: str, log: IO[bytes], process: psutil.Process, timeout_s: float = START_TIMEOUT_S
) -> str:
    """Wait for the first line of the output with this beginning.

    Raises:
        Unavailable: the process ended or took too long.
    """
    found: list[str] = []

    def missing() -> str:
        found.extend(line for line in log_lines(log) if line.startswith(beginning))
        return "" if found else f"no line {beginning.strip()!r} in its output"

    await_ready(missing, process, timeout_s)
    return found[0]


def pause() -> None:
    """Sleep between two checks."""
    time.sleep(0.2)  # noqa: TID251 - no event loop runs here


def chat_failure(port: int, model: str, api_key: str = "") -> str:
    """Error with which a model answers a chat request; empty if it answers with a 200."""
    messages = [{"role": "user", "content": "x"}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": 1})
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    headers = {"content-type": "application/json"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    try:
        connection.request("POST", CHAT_PATH, body, headers)
        response = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    else:
        return "" if response.status == 200 else f"{response.status} {response.reason}"
    finally:
        connection.close()
