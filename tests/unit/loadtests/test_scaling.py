"""The load test of autoscaling: its ramp, and what is kept of a run."""

import msgspec
import pytest

from loadtests.loadgen.outcome import RequestOutcome, Status
from loadtests.scaling import (
    BASE_RATE,
    DOWN_S,
    PEAK_RATE,
    TOP_S,
    UP_S,
    Record,
    ReplicaStates,
    ScalingRun,
    rate,
)


def run(*running: int) -> ScalingRun:
    """A run with so many running replicas, poll by poll."""
    looks = [
        ReplicaStates(
            at_s=5.0 * number, status="HEALTHY", states={"RUNNING": count} if count else {}
        )
        for number, count in enumerate(running)
    ]
    return ScalingRun(
        looks=looks,
        outcomes=[
            RequestOutcome(due_s=1.23456, status=Status.ANSWERED, http_status=200, ttft_s=0.5)
        ],
    )


@pytest.mark.parametrize(
    ("at_s", "expected"),
    [
        (0, BASE_RATE),
        (UP_S / 2, (BASE_RATE + PEAK_RATE) / 2),
        (UP_S, PEAK_RATE),
        (UP_S + TOP_S / 2, PEAK_RATE),
        (UP_S + TOP_S + DOWN_S / 2, (BASE_RATE + PEAK_RATE) / 2),
        (UP_S + TOP_S + DOWN_S, BASE_RATE),
    ],
)
def test_the_load_goes_up_and_down(at_s: float, expected: float) -> None:
    """Evenly, with a constant top in between."""
    assert rate(at_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("running", "most", "changes"),
    [([1, 1, 2, 4, 4, 3, 1], 4, 1), ([1, 2, 1, 2], 2, 2), ([1, 1], 1, 0), ([0, 3], 3, 0)],
)
def test_changes_of_direction_are_counted(running: list[int], most: int, changes: int) -> None:
    """Where the number falls after it rose, or rises after it fell."""
    assert (run(*running).max_running, run(*running).direction_changes) == (most, changes)


def test_the_record_of_a_run_can_be_read_again() -> None:
    """With its polls, and with what the picture shows of each request."""
    record = msgspec.json.decode(msgspec.json.encode(run(1, 2).record), type=Record)

    assert [look.running for look in record.looks] == [1, 2]
    assert record.requests == [(1.23, 200, 0.5, "")]
