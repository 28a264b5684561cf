"""The overload benchmark's own parts: what it sends, and how it reads what comes back."""

import itertools
import json
import math
import random

import pytest

from gateway.errors import InvalidRequest, Overloaded
from loadtests.open_loop import Client, Outcome, arrivals, flaw_of, quantile
from loadtests.overload import WINDOW, back_s, latency, ttfts_s

REJECTION = Overloaded("The model `m` is overloaded: 3 requests are waiting.", 1).body()
MUTE = Overloaded("No.", 1).body()
STREAM = b'data: {"choices":[]}\n\ndata: [DONE]\n\n'
TORN = b'data: {"error":{}}\n\ndata: [DONE]\n\n'


def outcome(sent_s: float, ttft_s: float, status: int = 200) -> Outcome:
    """An answer, or a rejection, without a flaw."""
    return Outcome(
        sent_s=sent_s, status=status, request_id=f"{sent_s}", ttft_s=ttft_s, e2e_s=10 * ttft_s
    )


def test_requests_come_at_random_at_the_rate() -> None:
    """As many as there should be, in order, and the spaces between them spread as Poisson's."""
    times = arrivals(50, 100, random.Random(1))  # noqa: S311 - load, not secrets
    spaces = [after - before for before, after in itertools.pairwise(times)]
    assert times == sorted(times)
    assert len(times) == pytest.approx(5000, rel=0.05)
    assert quantile(spaces, 0.5) == pytest.approx(math.log(2) / 50, rel=0.1)


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        (Client(name="a"), {"authorization": "Bearer a"}),
        (Client(name="a", has_key=False), {}),
        (
            Client(name="a", is_batch=True),
            {"authorization": "Bearer a", "x-gateway-priority": "batch"},
        ),
    ],
)
def test_what_tells_clients_apart(client: Client, headers: dict[str, str]) -> None:
    """A key, or else nothing but the address."""
    assert client.headers == headers


@pytest.mark.parametrize(
    ("status", "retry_after", "content", "flaw"),
    [
        (200, None, STREAM, ""),
        (200, None, STREAM[:-2], "ends with"),
        (200, None, TORN, "ends with"),
        (429, "2", REJECTION, ""),
        (429, None, REJECTION, "retry-after None"),
        (429, "0", REJECTION, "retry-after 0"),
        (429, "soon", REJECTION, "retry-after soon"),
        (429, "2", b"busy", "429: "),
        (429, "2", json.dumps({"error": "busy"}).encode(), "429: "),
        (429, "2", MUTE, "without a reason: No."),
        (429, "2", InvalidRequest("It may wait.").body(), "without a reason"),
        (503, "2", REJECTION, "status 503"),
    ],
)
def test_flaws_are_found(status: int, retry_after: str | None, content: bytes, flaw: str) -> None:
    """Whole streams are good, and rejections that say why and when to come again."""
    found = flaw_of(status, retry_after, content)
    assert flaw in found
    assert bool(found) == bool(flaw)


def test_a_light_load_is_what_was_answered() -> None:
    """Rejections count as sent only; what the engine says counts where it is known."""
    outcomes = [outcome(number, 0.1 * number) for number in range(1, 12)]
    found = latency([*outcomes, outcome(99, 99, status=429)], {"1": 0.01, "2": 0.02, "99": 99})
    assert (found.sent, found.answered) == (12, 11)
    assert [found.ttft_p50_s, found.ttft_p90_s] == pytest.approx([0.6, 1.0])
    assert [found.e2e_p50_s, found.e2e_p90_s] == pytest.approx([6, 10])
    assert found.engine_p50_s == pytest.approx(0.015)


@pytest.mark.parametrize(
    ("found_s", "expected_s"),
    [
        ([0.1] * 10, 1.0),
        ([9.0] * 3 + [0.1] * 7, 2.0),
        ([9.0] * 4 + [0.1, 9.0, 0.1, 9.0, 0.1, 0.1], 5.0),
        ([9.0] * 8 + [0.1] * 2, math.inf),
        ([0.1] * (WINDOW - 1), math.inf),
        ([], math.inf),
    ],
)
def test_the_way_back_is_over_when_most_are_normal(found_s: list[float], expected_s: float) -> None:
    """One probe a second from the end on: of five in a row three are normal."""
    after = [(1.0 + number, ttft_s) for number, ttft_s in enumerate(found_s)]
    assert back_s(after, 0.1) == expected_s


def test_a_rejected_probe_waits_for_ever() -> None:
    """However soon it was rejected; what was sent before the end does not count."""
    probes = [outcome(99, 7), outcome(100, 3), outcome(102, 0.01, status=429)]
    assert ttfts_s(probes, 100) == [(0, 3), (2, math.inf)]
