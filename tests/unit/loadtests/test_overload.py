"""The overload test's own parts: identities, latencies and recovery."""

import math

import pytest

from loadtests.loadgen.outcome import RequestOutcome, Status
from loadtests.overload import WINDOW, Latency, recovery_s, ttfts_after
from loadtests.sender import Identity


def outcome(due_s: float, ttft_s: float, status: Status = Status.ANSWERED) -> RequestOutcome:
    """A request that was due then."""
    return RequestOutcome(
        due_s=due_s, status=status, request_id=f"{due_s}", ttft_s=ttft_s, e2e_s=10 * ttft_s
    )


@pytest.mark.parametrize(
    ("identity", "headers"),
    [
        (Identity(name="a"), {"authorization": "Bearer a"}),
        (Identity(name="a", has_key=False), {}),
        (
            Identity(name="a", is_batch=True),
            {"authorization": "Bearer a", "x-gateway-priority": "batch"},
        ),
    ],
)
def test_identities_differ_by_key_or_address(identity: Identity, headers: dict[str, str]) -> None:
    """Without a key nothing but the address tells them apart."""
    assert identity.headers == headers


def test_latency_is_that_of_the_answered() -> None:
    """Rejections count as sent only; the engine's TTFT counts where it is known."""
    outcomes = [outcome(number, 0.1 * number) for number in range(1, 12)]
    outcomes.append(outcome(99, 99, Status.REJECTED))
    found = Latency.of(outcomes, {"1": 0.01, "2": 0.02, "99": 99})

    assert (found.sent, found.answered) == (12, 11)
    assert [found.ttft_p50_s, found.ttft_p90_s] == pytest.approx([0.6, 1.0])
    assert [found.e2e_p50_s, found.e2e_p90_s] == pytest.approx([6, 10])
    assert found.engine_p50_s == pytest.approx(0.015)
    assert math.isnan(Latency.of([], {}).ttft_p50_s)


@pytest.mark.parametrize(
    ("ttfts_s", "expected_s"),
    [
        ([0.1] * 10, 1.0),
        ([9.0] * 3 + [0.1] * 7, 2.0),
        ([9.0] * 4 + [0.1, 9.0, 0.1, 9.0, 0.1, 0.1], 5.0),
        ([9.0] * 8 + [0.1] * 2, math.inf),
        ([0.1] * (WINDOW - 1), math.inf),
        ([], math.inf),
    ],
)
def test_recovery_starts_with_the_first_normal_window(
    ttfts_s: list[float], expected_s: float
) -> None:
    """One probe a second: in a window of five the median has to be normal."""
    probes = [(1.0 + number, ttft_s) for number, ttft_s in enumerate(ttfts_s)]
    assert recovery_s(probes, 0.1) == expected_s


def test_a_rejected_probe_has_an_infinite_ttft() -> None:
    """However soon it was rejected; probes from before the end do not count."""
    probes = [outcome(99, 7), outcome(100, 3), outcome(102, 0.01, Status.REJECTED)]
    assert ttfts_after(probes, 100) == [(0, 3), (2, math.inf)]
