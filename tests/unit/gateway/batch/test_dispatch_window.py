"""Batches get what is spare, and more only if they would miss their deadline."""

import math

import msgspec
import pytest

from gateway.batch.dispatch_window import (
    DispatchWindow,
    Pace,
    ReplicaRoom,
    dispatch_windows,
    needed_lines,
    spare_lines,
    spare_tokens,
)
from gateway.batch.start_budget import StartBudget

IDLE = ReplicaRoom(
    slots=100,
    sequences=0,
    ours=0,
    kv_tokens=100_000,
    free_tokens=100_000,
    pending_tokens=0,
    step_tokens=2_000,
    prefill_s=0.0001,
)


@pytest.mark.parametrize(
    ("changes", "is_used", "lines"),
    [
        ({}, False, 75),  # a quarter of the slots stays free
        ({"sequences": 30}, False, 45),  # what others have counts
        ({"sequences": 30, "ours": 30}, False, 75),  # its own does not
        ({"sequences": 90}, False, 0),
        ({"is_sought": True}, True, 0),  # interactive requests wait for it
        ({}, True, 12),  # each sequence makes steps longer
        ({"sequences": 70}, True, 5),
        ({"free_tokens": 30_000}, False, 50),  # a quarter of the cache stays free
        ({"free_tokens": 20_000, "ours": 60, "sequences": 60}, False, 10),
        ({"kv_tokens": 0, "free_tokens": 0}, False, 75),  # an engine without a KV cache
    ],
)
def test_how_many_lines_are_spare_at_a_replica(
    changes: dict[str, float], lines: int, *, is_used: bool
) -> None:
    """The least of slots and KV cache holds, and fewer where the model is used."""
    room = msgspec.structs.replace(IDLE, **changes)

    assert spare_lines(room, 100, is_used=is_used) == lines


@pytest.mark.parametrize(
    ("changes", "is_used", "tokens"),
    [
        ({}, False, 2_000),  # a step's worth
        ({"pending_tokens": 1_900}, False, 100),
        ({"pending_tokens": 9_000}, False, 0),
        ({"step_tokens": 0}, False, 2_048),
        ({}, True, 120),  # 12 ms
        ({"pending_tokens": 100}, True, 20),
        ({"prefill_s": 0.00001}, True, 1_200),
        ({"prefill_s": 0.000001}, True, 2_000),
        ({"prefill_s": 0.0}, True, 120),
    ],
)
def test_how_many_prompt_tokens_are_spare_at_a_replica(
    changes: dict[str, float], tokens: float, *, is_used: bool
) -> None:
    """A step's worth, and beside others what takes so little time that they do not feel it."""
    room = msgspec.structs.replace(IDLE, **changes)

    assert spare_tokens(room, is_used=is_used) == pytest.approx(tokens)


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
    found = dispatch_windows([room], paces, guaranteed_share=guaranteed_share, line_tokens=100)
    return [DispatchWindow(each.lines, each.guaranteed) for each in found]


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


def test_a_large_prompt_beside_others_rests_first() -> None:
    """Its time is a thousandth of all; on two replicas, twice as often."""
    rooms = [IDLE, IDLE]

    (calm,) = dispatch_windows(rooms, [CALM], guaranteed_share=0.5)
    (used,) = dispatch_windows(rooms, [CALM], guaranteed_share=0.5, is_used=True)

    assert (calm.tokens, calm.largest, calm.rest_s) == (4_000, math.inf, 0.0)
    assert used.tokens == pytest.approx(240)
    assert used.largest == pytest.approx(120)
    assert used.rest_s == pytest.approx(0.0001 * 1000 / 2)


def test_what_may_start_of_a_window() -> None:
    """Small lines while tokens are left, and large ones one at a time, each after its rest."""
    budget = StartBudget()
    window = DispatchWindow(9, 0, tokens=100, largest=60, rest_s=0.1)

    budget.renew(window)
    small = budget.may_start(50, 0.0)
    budget.record_start(50, 0.0)
    too_much = budget.may_start(60, 0.0)
    budget.renew(window)
    large = budget.may_start(500, 1.0)
    budget.record_start(500, 1.0)
    budget.renew(window)
    soon, later = budget.may_start(500, 50.0), budget.may_start(500, 51.0)

    assert (small, too_much, large, soon, later) == (True, False, True, False, True)
    assert budget.may_start(50, 2.0)


def test_nobody_waits_for_room_that_no_prompt_would_have() -> None:
    """Where nobody else is, a prompt of any length starts, and the next one waits for it."""
    budget = StartBudget()

    budget.renew(DispatchWindow(9, 0, tokens=100))

    assert budget.may_start(5_000, 0.0)
    budget.record_start(5_000, 0.0)
    assert not budget.may_start(10, 0.0)


@pytest.mark.parametrize("batches", [1, 2, 8])
@pytest.mark.parametrize("line_tokens", [100, 500], ids=["small", "large"])
def test_all_batches_start_lines_beside_others(batches: int, line_tokens: int) -> None:
    """However many share what is spare; together they start hardly more than one alone would."""
    budgets = [StartBudget() for _ in range(batches)]
    paces = [Pace(left=1, time_left_s=80_000, line_s=8) for _ in range(batches)]
    starts = [0] * batches

    for tick in range(10_000):
        now_s = tick / 10
        windows = dispatch_windows([IDLE], paces, guaranteed_share=0.5, is_used=True, turn=tick)
        for number, (budget, window) in enumerate(zip(budgets, windows, strict=True)):
            budget.renew(window)
            if budget.may_start(line_tokens, now_s):
                budget.record_start(line_tokens, now_s)
                starts[number] += 1

    most = 10_000 if line_tokens == 100 else 21
    assert min(starts) >= most // batches // 2 > 0
    assert sum(starts) <= most + batches
