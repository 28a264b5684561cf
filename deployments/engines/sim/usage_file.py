"""File in which a simulated engine writes its usage records, each before it reports it."""

import os
from pathlib import Path

import msgspec

from gateway.engine_telemetry.usage_log import UsageLog


class UsageFile:
    """Follows a log; a record that is written outlives the engine, however that dies."""

    def __init__(self, log: UsageLog, folder: str) -> None:
        self._log = log
        self._path = Path(folder, f"{log.epoch}-{os.getpid()}.jsonl")
        self._encoder = msgspec.json.Encoder()
        self._last_seq = 0
        log.add_listener(self._write)

    def _write(self) -> None:
        """Write the newest record, unless it is written: confirmations call this, too."""
        record = self._log.newest
        if record is not None and record.seq > self._last_seq:
            self._last_seq = record.seq
            with self._path.open("ab") as file:
                file.write(self._encoder.encode(record) + b"\n")
