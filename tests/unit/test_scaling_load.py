"""What the load test of autoscaling makes of what it saw."""

import msgspec
import pytest

from loadtests.open_loop import Outcome
from loadtests.scaling import DOWN_S, LEAST_RATE, PEAK_RATE, TOP_S, UP_S, Look, Record, Run, rate


def run(*running: int) -> Run:
    """A run in which so many replicas ran, look by look."""
    looks = [
        Look(at_s=5.0 * number, status="HEALTHY", states={"RUNNING": count} if count else {})
        for number, count in enumerate(running)
    ]
    return Run(looks=looks, outcomes=[Outcome(sent_s=1.23456, status=200, ttft_s=0.5)])


@pytest.mark.parametrize(
    ("at_s", "expected"),
    [
        (0, LEAST_RATE),
        (UP_S / 2, (LEAST_RATE + PEAK_RATE) / 2),
        (UP_S, PEAK_RATE),
        (UP_S + TOP_S / 2, PEAK_RATE),
        (UP_S + TOP_S + DOWN_S / 2, (LEAST_RATE + PEAK_RATE) / 2),
        (UP_S + TOP_S + DOWN_S, LEAST_RATE),
    ],
)
def test_the_load_goes_up_and_down(at_s: float, expected: float) -> None:
    """Evenly, with a top between."""
    assert rate(at_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("running", "most", "turns"),
    [([1, 1, 2, 4, 4, 3, 1], 4, 1), ([1, 2, 1, 2], 2, 2), ([1, 1], 1, 0), ([0, 3], 3, 0)],
)
def test_turns_are_counted(running: list[int], most: int, turns: int) -> None:
    """Where the number falls after it rose, and the other way round."""
    assert (run(*running).most, run(*running).turns) == (most, turns)


def test_what_is_kept_of_a_run_can_be_read_again() -> None:
    """Looks, and of each request what the picture shows."""
    record = msgspec.json.decode(msgspec.json.encode(run(1, 2).record), type=Record)

    assert [look.running for look in record.looks] == [1, 2]
    assert record.requests == [(1.23, 200, 0.5, "")]
