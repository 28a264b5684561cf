"""Counts of connections that did not end well, by HAProxy's termination state.

A router that is killed can neither log nor count the streams that end with it: HAProxy sees them.
It sends a log line for each request that ends in an error to a socket of its supervisor, which adds
them up in a file beside the socket. A router of the node reads the file and publishes the counts;
they outlive every one of these processes.
"""

import contextlib
import json
import os
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self

LOG_SUFFIX = ".log"
COUNTS_SUFFIX = ".terminations"
MAX_LINE = 8192
STATE_FIELD = 9
"""Place of the termination state in a line of HAProxy's `option httplog`."""
RESTART = "restart"
"""Stands for a HAProxy that was killed, and took an unknown number of connections with it."""


class TerminationLog:
    """Receives HAProxy's log lines, and adds their termination states up in a file."""

    def __init__(self, path: Path, counts: Path) -> None:
        self._path = path
        self._file = counts
        self._fresh: Counter[str] = Counter()
        self.socket: socket.socket | None = None

    @classmethod
    def beside(cls, admin: str) -> Self:
        """The log of the HAProxy with this admin socket."""
        return cls(Path(admin + LOG_SUFFIX), Path(admin + COUNTS_SUFFIX))

    def open(self) -> None:
        """Listen, in place of the supervisor before this one."""
        draft = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            Path(draft).unlink()
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.setblocking(False)
        receiver.bind(draft)
        Path(draft).replace(self._path)
        self.socket = receiver

    def count(self, state: str) -> None:
        """Count one event."""
        self._fresh[state] += 1

    def read_and_save(self) -> None:
        """Count the lines that have arrived, and add the counts to those in the file."""
        if self.socket is not None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    if state := state_of(self.socket.recv(MAX_LINE)):
                        self.count(state)
        if self._fresh:
            totals = Counter(read_counts(self._file)) + self._fresh
            write_counts(self._file, totals)
            self._fresh.clear()


def state_of(line: bytes) -> str:
    """The first two letters of the termination state in a log line; empty if all went well."""
    fields = line.split(b" ", STATE_FIELD + 1)
    state = fields[STATE_FIELD] if len(fields) > STATE_FIELD else b""
    if len(state) != 4 or state.startswith(b"-"):
        return ""
    return state[:2].decode("ascii", "replace")


def read_counts(file: Path) -> dict[str, int]:
    """Counts by state; none if there is no readable file."""
    try:
        counts = json.loads(file.read_bytes())
        return {str(state): int(count) for state, count in counts.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def write_counts(file: Path, counts: Mapping[str, int]) -> None:
    """Replace the counts, so that a reader sees either the old or the new ones."""
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(dict(counts), out)
    draft.replace(file)
