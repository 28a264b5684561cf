"""The file with a simulated engine's usage records."""

from pathlib import Path

import msgspec

from deployments.engines.sim.usage_file import UsageFile
from gateway.engine_telemetry.usage_log import UsageLog
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.usage import UsageRecord


def record(seq: int) -> UsageRecord:
    """A record of an engine."""
    return UsageRecord(
        epoch=7, seq=seq, id=seq, origin=Origin(project="p"), model="m", arrived_s=1.0, ended_s=2.0
    )


def test_each_record_is_written_once_and_at_once(tmp_path: Path) -> None:
    """Also if Accounts confirms some meanwhile; so they outlive the engine."""
    log = UsageLog(epoch=7)
    UsageFile(log, str(tmp_path))
    for seq in (1, 2, 3):
        log.append(record(seq))
        log.confirm(7, seq - 1)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("7-")
    lines = file.read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=UsageRecord) for line in lines] == [
        *map(record, (1, 2, 3))
    ]
