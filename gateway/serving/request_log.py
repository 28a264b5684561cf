"""Request log: a line of JSON for each request, in a file that is rotated by its size.

The event loop only appends a summary to a list. A thread writes what has come every quarter of a
second. If the disk does not keep up, or is full, lines are dropped and counted: no request waits.
"""

import asyncio
import itertools
import logging
import os
from collections import deque
from pathlib import Path

import msgspec

from gateway.config.request_log import RequestLogOptions
from gateway.periodic import Periodic
from gateway.rare_warning import RareWarning
from gateway.serving.live_config import LiveConfig
from gateway.serving.request_history import RequestHistory
from gateway.serving.request_summary import RequestSummary

WRITE_PERIOD_S = 0.25
MAX_WAITING = 50_000
"""Lines that wait to be written: some seconds' worth of a router's, and 50 MB."""
MB = 1 << 20

logger = logging.getLogger(__name__)


class LineFile:
    """A file of lines that is renamed once it is full: `NAME`, and before it `NAME.1`, `NAME.2`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, lines: bytes, max_bytes: int, max_files: int) -> None:
        """Append lines. Blocks.

        `max_files`: files that are kept, each of about `max_bytes`.

        Raises:
            OSError: they could not be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "ab", opener=_open_private) as file:
            file.write(lines)
            is_full = file.tell() >= max_bytes
        if is_full:
            self._rotate(max_files)

    def _rotate(self, max_files: int) -> None:
        older = [self._numbered(number) for number in range(max_files)]
        older[-1].unlink(missing_ok=True)
        for path, next_path in reversed(list(itertools.pairwise(older))):
            if path.exists():
                path.rename(next_path)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _open_private(path: str, flags: int) -> int:
    """Open a file that others than its owner and group cannot read: it has clients' addresses."""
    return os.open(path, flags, 0o640)


class RequestLog:
    """Request log of one router, written from `start` to `close` as the config in force says.

    `folder`: where its file is unless the config names another; None: only where the config does.
    """

    def __init__(
        self, router: str, history: RequestHistory, live_config: LiveConfig, folder: Path | None
    ) -> None:
        self._history = history
        self._live_config = live_config
        self._folder = folder
        self._name = f"requests_{router}.jsonl"
        self._waiting: deque[RequestSummary] = deque()
        self._dropped = 0
        self._encoder = msgspec.json.Encoder()
        self._failures = RareWarning(logger)
        self._writing = Periodic("writing the request log", WRITE_PERIOD_S, self.flush)
        history.add_listener(self.add)

    def start(self) -> None:
        """Begin to write."""
        self._writing.start()

    async def close(self) -> None:
        """Write the last lines."""
        await self._writing.close()
        self._history.close()
        await self.flush()

    def add(self, summary: RequestSummary) -> None:
        """Have a line written, if the config in force says so."""
        if not self._options.enabled:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(summary)

    @property
    def _options(self) -> RequestLogOptions:
        return self._live_config.config.request_log

    async def flush(self) -> None:
        """Write the lines that wait."""
        self._history.expire()
        options = self._options
        folder = self._folder if options.folder is None else Path(options.folder)
        if not self._waiting or folder is None:
            self._waiting.clear()
            return
        batch = list(self._waiting)
        self._waiting.clear()
        try:
            await asyncio.to_thread(self._append, batch, LineFile(folder / self._name), options)
        except OSError as error:
            self._failures.log(
                "%d lines of the request log are lost: %s: free disk space, or set"
                " `request_log.folder` to a folder that the router may write to",
                *(len(batch) + self._dropped, error),
            )
            self._dropped = 0
        if self._dropped:
            self._failures.log("%d lines of the request log are lost: too many", self._dropped)
            self._dropped = 0

    def _append(
        self, batch: list[RequestSummary], file: LineFile, options: RequestLogOptions
    ) -> None:
        lines = bytearray()
        for summary in batch:
            lines += self._encoder.encode(summary)
            lines += b"\n"
        file.write(bytes(lines), int(options.max_file_mb * MB), options.max_files)
