"""Batches get what is spare, and more only if they would miss their deadline."""

import msgspec
import pytest

from gateway.batch.dispatch_window import (
    DispatchWindow,
    LineCost,
    Pace,
    ReplicaRoom,
    dispatch_windows,
    needed_lines,
    spare_lines,
)

IDLE = ReplicaRoom(
    slots=100,
    sequences=0,
    ours=0,
    kv_tokens=100_000,
    free_tokens=100_000,
    pending_tokens=0,
    step_tokens=2_000,
)
LINE = LineCost(new_tokens=10, tokens=100)


@pytest.mark.parametrize(
    ("changes", "cost", "lines"),
    [
        ({}, LINE, 75),  # a quarter of the slots stays free
        ({"sequences": 30}, LINE, 45),  # what others have counts
        ({"sequences": 30, "ours": 30}, LINE, 75),  # its own does not
        ({"sequences": 90}, LINE, 0),
        ({"is_sought": True}, LINE, 0),  # interactive requests wait for it
        ({"free_tokens": 30_000}, LINE, 50),  # a quarter of the cache stays free
        ({"free_tokens": 20_000, "ours": 10, "sequences": 10}, LINE, 0),
        ({"kv_tokens": 0, "free_tokens": 0}, LINE, 75),  # an engine without a KV cache
        ({"pending_tokens": 2_000}, LINE, 0),  # a step of prompts is pending
        ({"pending_tokens": 2_000, "ours": 8, "sequences": 8}, LINE, 8),  # no more than there are
        ({"pending_tokens": 1_900}, LINE, 10),
        ({}, LineCost(new_tokens=5_000, tokens=100), 1),  # one long prompt at a time
        ({"step_tokens": 0}, LineCost(new_tokens=1_024, tokens=1_100), 2),
    ],
)
def test_what_is_spare_at_a_replica(
    changes: dict[str, float], cost: LineCost, lines: int
) -> None:
    """The least of slots, KV cache and prompts that are pending holds."""
    assert spare_lines(msgspec.structs.replace(IDLE, **changes), cost) == lines


@pytest.mark.parametrize(
    ("pace", "lines"),
    [
        (Pace(left=1000, time_left_s=1000, line_s=0), 38),  # a line is thought to take 30 s
        (Pace(left=100, time_left_s=80_000, line_s=8), 0),  # it can wait for a while
        (Pace(left=1000, time_left_s=1000, line_s=8), 10),  # 8000 s of work in 800 s
        (Pace(left=3, time_left_s=1, line_s=8), 3),  # late: all at once
        (Pace(left=1000, time_left_s=-5, line_s=8), 1000),
        (Pace(left=0, time_left_s=100, line_s=8), 0),
    ],
)
def test_what_a_batch_needs(pace: Pace, lines: int) -> None:
    """Its work, shared out over most of the time that is left."""
    assert needed_lines(pace) == lines


def _windows(
    room: ReplicaRoom, *paces: Pace, guaranteed_share: float = 0.5
) -> list[DispatchWindow]:
    return dispatch_windows([room], paces, guaranteed_share=guaranteed_share, cost=LINE)


CALM = Pace(left=1000, time_left_s=80_000, line_s=8)
LATE = Pace(left=1000, time_left_s=100, line_s=8)
BUSY = msgspec.structs.replace(IDLE, sequences=100, free_tokens=0)


def test_a_batch_with_time_gets_what_is_spare_and_nothing_else() -> None:
    """Nothing beside interactive requests, everything else when there are none."""
    assert _windows(IDLE, CALM) == [DispatchWindow(75)]
    assert _windows(BUSY, CALM) == [DispatchWindow(0)]


def test_a_batch_that_would_be_late_gets_its_guaranteed_share() -> None:
    """As much of it as it needs, up to half of the slots here."""
    assert _windows(BUSY, LATE) == [DispatchWindow(50, 50)]
    assert _windows(BUSY, LATE, guaranteed_share=0.0) == [DispatchWindow(0)]
    assert _windows(IDLE, LATE) == [DispatchWindow(75, 50)]


def test_batches_share_what_there_is_by_deadline() -> None:
    """Together they never get more than one alone would."""
    first, second = _windows(IDLE, Pace(left=60, time_left_s=9_000, line_s=1), CALM)
    late, later = _windows(BUSY, LATE, LATE)

    assert (first.lines, second.lines) == (60, 15)
    assert (late.guaranteed, later.guaranteed) == (50, 0)
