"""Audit of a ledger after chaos: what it finds wrong, and what it excuses."""

import msgspec
import pytest

from gateway.telemetry.dispatch import Origin
from gateway.telemetry.usage import UsageRecord
from loadtests.chaos_audit import LIMITED, Row, audited, most_at_once, most_in_a_minute

ANSWERED = {"a-1": 8, "a-2": 8}
DEATH_S = 35.05
"""Just after the end of the second request."""
ORIGIN = Origin(project=LIMITED, key="key_1", request_id="a-1")


def record(seq: int, **fields: object) -> UsageRecord:
    """What an engine has written of the request of its number."""
    return UsageRecord(
        epoch=1,
        seq=seq,
        id=100 + seq,
        origin=msgspec.structs.replace(ORIGIN, request_id=f"a-{seq}"),
        model="m",
        adapter="",
        arrived_s=10.0 * seq,
        ended_s=10.0 * seq + 15,
        prompt_tokens=5,
        cached_tokens=0,
        completion_tokens=8,
        queue_s=0,
        prefill_s=0,
        decode_s=0,
        device_s=0,
        **fields,  # type: ignore[arg-type] # fields of the record
    )


def row(seq: int, **fields: object) -> Row:
    """What the ledger has of it."""
    found = Row(
        epoch=1,
        seq=seq,
        dispatch_id=100 + seq,
        request_id=f"a-{seq}",
        project=LIMITED,
        is_continuation=False,
        is_estimated=False,
        is_wasted=False,
        prompt_tokens=5,
        cached_tokens=0,
        completion_tokens=8,
        charged_completion_tokens=8,
    )
    return msgspec.structs.replace(found, **fields)


RECORDS = [record(1), record(2)]
ROWS = [row(1), row(2)]


def test_a_ledger_that_is_true_is_good() -> None:
    """It has all that engines reported, and each request is charged once."""
    audit = audited(RECORDS, ROWS, ANSWERED, {})
    assert audit.is_good(0)
    assert (audit.engine_records, audit.rows) == (2, 2)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([row(2)], "gaps"),
        ([row(1, completion_tokens=9), row(2)], "differing"),
        ([*ROWS, row(3)], "differing"),
        ([row(1, is_wasted=True), row(2)], "not_charged"),
        ([row(1, charged_completion_tokens=7), row(2)], "other_tokens"),
        ([*ROWS, row(5, request_id="a-1", is_estimated=True)], "charged_twice"),
        ([row(1)], "gaps"),
    ],
)
def test_a_ledger_that_is_wrong_is_not(rows: list[Row], found: str) -> None:
    """Whatever is lost, invented, changed, or charged twice or not at all."""
    audit = audited(RECORDS, rows, ANSWERED, {})
    assert getattr(audit, found) == 1
    assert not audit.is_good(0)


def test_what_a_dead_engine_had_not_reported_may_be_estimated() -> None:
    """The router charges it by what it has relayed."""
    estimate = row(2, epoch=0, is_estimated=True, completion_tokens=7, charged_completion_tokens=7)
    audit = audited(RECORDS, [row(1), estimate], ANSWERED, {1: DEATH_S})
    assert audit.is_good(0)
    assert (audit.unreported, audit.estimated, audit.other_tokens_estimated) == (1, 1, 1)
    late = audited(RECORDS, [row(1), estimate], ANSWERED, {1: DEATH_S + 1})
    assert late.only_estimated == 1
    assert not late.is_good(0)


def test_limits_are_those_of_windows_and_of_moments() -> None:
    """Requests that were sent within a minute, and that ran at once, whatever the attempt."""
    records = [record(seq) for seq in range(1, 10)]
    times_s = {f"a-{seq}": (10.0 * seq, 10.0 * seq + 20) for seq in range(1, 10)}
    assert most_in_a_minute([*records, record(9)], times_s) == 6
    assert most_at_once(records, times_s) == 2
    assert most_at_once([*records, record(9), record(9)], times_s) == 2


def test_what_an_engine_still_does_for_an_answered_request_is_no_concurrent_request() -> None:
    """It hangs: another engine has answered in its place."""
    records = [record(1), record(2)]
    assert most_at_once(records, {"a-1": (9.0, 25.0), "a-2": (20.0, 35.0)}) == 2
    assert most_at_once(records, {"a-1": (9.0, 19.0), "a-2": (20.0, 35.0)}) == 1


def test_a_dispatch_that_was_delivered_twice_has_two_rows() -> None:
    """The engine has reported both."""
    again = msgspec.structs.replace(record(3), id=102)
    wasted = row(3, dispatch_id=102, request_id="a-2", is_wasted=True)
    audit = audited([*RECORDS, again], [*ROWS, wasted], ANSWERED, {})
    assert audit.is_good(0)
    assert audit.repeated == 1
    assert audited([*RECORDS, again], ROWS, ANSWERED, {}).gaps == 1
