"""The routing comparison: scaled requests, scores, runs, report."""

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from deployments.local import processes
from gateway.errors.startup import ConfigError
from gateway.simulation.trace import BLOCK_TOKENS, trace_request
from loadtests import targets
from loadtests.comparison.routing import LEAD_SHARE, Match
from loadtests.comparison.routing_contenders import Contender
from loadtests.comparison.routing_report import RoutingReport, draw
from loadtests.comparison.routing_run import MAX_LATE_S, RoutingRun, run_slice, scored
from loadtests.comparison.routing_scores import OURS, Score, against_best
from loadtests.comparison.shared import Machine
from loadtests.comparison.trace_slices import (
    SKIPPED_S,
    TIME_SCALE,
    TOKEN_SCALE,
    SlicedWorkload,
    salted,
    scaled,
)
from loadtests.launch import Unavailable
from loadtests.loadgen.outcome import RequestOutcome, Status
from loadtests.loadgen.worker import ScheduleResult
from loadtests.workloads.texts import prompt_text

TIMEOUT_S = 10.0


def answered(ttft_s: float = 0.1, e2e_s: float = 0.5, cached: int = 0) -> RequestOutcome:
    """An answer of eleven tokens, by the clock, to a prompt of 100."""
    return RequestOutcome(
        due_s=0,
        status=Status.ANSWERED,
        http_status=200,
        ttft_s=ttft_s,
        e2e_s=e2e_s,
        prompt_tokens=100,
        cached_tokens=cached,
        completion_tokens=11,
    )


def rejected(due_s: float = 0, http_status: int = 429) -> RequestOutcome:
    """A request that was turned away."""
    return RequestOutcome(due_s=due_s, status=Status.REJECTED, http_status=http_status)


def failed(due_s: float = 0, reason: str = "ConnectionRefusedError") -> RequestOutcome:
    """A request without a response."""
    return RequestOutcome(due_s=due_s, status=Status.FAILED, reason=reason)


def test_times_are_those_of_the_workload() -> None:
    """A second of the clock is several of the workload."""
    found = Score.of([answered(0.1, 0.5), answered(0.3, 0.7)], TIMEOUT_S)

    assert found.ttft_mean_s == pytest.approx(0.2 * TIME_SCALE)
    assert found.e2e_mean_s == pytest.approx(0.6 * TIME_SCALE)


def test_a_request_without_an_answer_counts_with_the_timeout() -> None:
    """Rejecting requests, or losing them, makes no figure better."""
    found = Score.of([answered(), answered(), rejected(), failed()], TIMEOUT_S)

    assert found.e2e_mean_s == pytest.approx((0.5 + TIMEOUT_S) / 2 * TIME_SCALE)
    assert found.goodput == 0.5
    assert (found.sent, found.rejected, found.failed) == (4, 1, 1)


def test_the_hit_rate_is_of_answered_tokens() -> None:
    """By the engines' count."""
    outcomes = [answered(cached=90), answered(cached=0), failed()]
    assert Score.of(outcomes, TIMEOUT_S).hit_rate == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "is_good"), [(3.9, 0.09, True), (4.1, 0.09, False), (3.9, 0.11, False)]
)
def test_goodput_counts_answers_within_both_limits(
    ttft_s: float, tpot_s: float, *, is_good: bool
) -> None:
    """To the first token, and for each of the workload's tokens after it."""
    e2e_s = ttft_s + tpot_s * 10 * TOKEN_SCALE
    outcomes = [answered(ttft_s / TIME_SCALE, e2e_s / TIME_SCALE)]

    assert Score.of(outcomes, TIMEOUT_S).goodput == (1.0 if is_good else 0.0)


def score(e2e_mean_s: float, goodput: float) -> Score:
    """A score of which nothing else matters."""
    zero = Score.of([answered()], TIMEOUT_S)
    return msgspec.structs.replace(zero, e2e_mean_s=e2e_mean_s, goodput=goodput)


def test_this_gateway_is_compared_with_the_best_of_the_others() -> None:
    """Round by round; the best is so by its median. Alone there is nothing to compare."""
    rounds = {
        "slow": [score(9, 0.1), score(9, 0.1), score(9, 0.1)],
        OURS: [score(2, 0.9), score(4, 0.9), score(3, 0.9)],
        "fast": [score(2, 0.8), score(3, 0.9), score(3, 1.0)],
    }
    (_, fastest, e2e), (_, best, goodput) = against_best(rounds)

    assert (fastest, best) == ("fast", "fast")
    assert (e2e.least, e2e.median, e2e.most) == pytest.approx((1.0, 1.0, 4 / 3))
    assert goodput.median == pytest.approx(1.0)
    assert against_best({OURS: rounds[OURS]}) == []
    nobody = {OURS: [score(1, 0.0)], "other": [score(1, 0.0)]}
    assert against_best(nobody)[1][2].median == 1.0


def test_requests_are_scaled_with_their_shared_prefixes() -> None:
    """Fewer tokens, and sooner."""
    one = scaled(trace_request(16.0, 3 * BLOCK_TOKENS + 64, 320, [1, 2, 3, 4]))
    other = scaled(trace_request(16.0, 2 * BLOCK_TOKENS, 1, [1, 2]))

    assert one.arrived_s == 16.0 / TIME_SCALE
    assert (one.prompt_tokens, one.output_tokens) == ((3 * BLOCK_TOKENS + 64) // TOKEN_SCALE, 20)
    assert other.output_tokens == 1
    assert prompt_text(one, "").startswith(prompt_text(other, ""))
    assert len(prompt_text(one, "")) == one.prompt_tokens * 4


def test_salted_requests_share_text_among_themselves_only() -> None:
    """Another salt is other text, from the first block on."""
    requests = [scaled(trace_request(0, 2 * BLOCK_TOKENS, 1, [1, last])) for last in (2, 3)]
    one, other = (
        [prompt_text(request, "") for request in salted(requests, salt)] for salt in (7, 1 << 63)
    )

    block = requests[0].prompt.key_bytes
    assert one[0][:block] == one[1][:block]
    assert one[0][block:] != one[1][block:]
    assert one[0][:block] != other[0][:block]


def test_slices_follow_each_other() -> None:
    """Each has times from its own beginning, and no request is in two of them."""
    workload = SlicedWorkload.generated("none", SKIPPED_S + 3.0)
    first, second = workload.slice(0, 1.0), workload.slice(1, 1.0)

    assert first
    assert second
    assert all(0 <= request.arrived_s < 1.0 for request in (*first, *second))
    assert not {r.prompt.keys[0] for r in first if r.prompt.keys} & {
        r.prompt.keys[0] for r in second if r.prompt.keys
    }


def test_a_trace_that_is_too_short_is_refused(tmp_path: Path) -> None:
    """With its length and the length that is needed."""
    path = tmp_path / "short.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [1]}\n')

    with pytest.raises(ConfigError, match="lasts 0 s, and 30 s are needed"):
        SlicedWorkload.of_trace(path, 2.0, 30.0)


def result(*outcomes: RequestOutcome, late_s: float = 0.0) -> ScheduleResult:
    """A load generator's result."""
    return ScheduleResult(outcomes=[*outcomes], late_s=late_s, cpus=0.1, busy_share=0.5)


def test_a_run_without_any_response_is_not_scored() -> None:
    """A contender that rejects everything has a score, one that is gone has none."""
    with pytest.raises(Unavailable, match=r"none of 2 requests was answered: 0: ConnectionRefused"):
        scored(result(failed(), failed()), lead_s=0)
    assert scored(result(failed(), rejected()), lead_s=0).score.goodput == 0


def test_the_lead_of_a_run_is_not_scored() -> None:
    """It only fills caches and batches."""
    early = failed(0.9, "TimeoutError")

    assert scored(result(early, answered()), lead_s=0.0).score.failed == 1
    assert scored(result(early, rejected(1.0, 503)), lead_s=1.0).score.failed == 0


@pytest.mark.parametrize(("late_s", "is_doubtful"), [(MAX_LATE_S, False), (0.034, True)])
def test_a_run_whose_load_generator_was_late_is_doubtful(
    late_s: float, *, is_doubtful: bool
) -> None:
    """It says how late."""
    assert ("34 ms late" in scored(result(answered(), late_s=late_s), 0).doubt) is is_doubtful


def test_a_contender_that_is_gone_cannot_be_run() -> None:
    """Nor can a slice without requests."""
    gone = Contender("gone", processes.free_port(), "m")
    requests = [scaled(trace_request(0.0, BLOCK_TOKENS, 16, [1]))]

    with pytest.raises(Unavailable, match="none of 1 requests was answered"):
        run_slice(gone, requests, "a run", 0.0)
    with pytest.raises(Unavailable, match="no request"):
        run_slice(gone, [], "a run", 0.0)


def test_a_contender_leaves_only_the_workload_that_it_fails_on() -> None:
    """Its runs there are left out; a workload that all have left is not reported."""
    failing = {("hot", "one"), ("none", "one"), ("none", "two")}

    def fake_run(contender: Contender, _: object, title: str, lead_s: float) -> RoutingRun:
        assert lead_s == LEAD_SHARE * 6.0
        if (title.split(",", maxsplit=1)[0], contender.name) in failing:
            raise Unavailable("cut")
        return scored(result(answered()), 0)

    contenders = [Contender(name, 1, "m") for name in ("one", "two")]
    workloads = [SlicedWorkload(name, []) for name in ("hot", "none")]
    match = Match(contenders, workloads, 6.0, Console(quiet=True), fake_run)
    for number in range(2):
        match.play(number)

    assert {name: [*runs] for name, runs in match.runs.items()} == {"hot": ["two"]}
    assert len(match.runs["hot"]["two"]) == 2
    assert [*match.dropped] == ["one on hot", "one on none", "two on none"]
    assert match.dropped["one on hot"] == "hot, round 1, one, again: cut"


def report() -> RoutingReport:
    """Two rounds, of which one is doubtful; one contender has left a workload."""
    good, late = (scored(result(answered(), late_s=late_s), 0) for late_s in (0.001, 0.034))
    return RoutingReport(
        machine=Machine(cpus=2, memory_gib=8, system="Linux", python="3.11", date="2026-01-01"),
        seconds=6.0,
        versions={},
        missing={"smg on hot": "round 2: cut"},
        turns={
            "hot": {OURS: [good, late], "round-robin": [good, good]},
            "none": {OURS: [good, good], "round-robin": [good, good], "smg": [good, good]},
        },
    )


def test_the_tables_name_doubtful_runs_and_the_missing() -> None:
    """And the worst of a figure of which one bad run spoils a comparison."""
    console = Console(width=190, record=True, file=io.StringIO())
    report().print(console)
    text = console.export_text()

    assert "18 [to 34]" in text
    assert f"not to be trusted: hot, round 2, {OURS}: its client sent 34 ms late" in text
    assert "smg on hot: round 2: cut" in text
    assert "`marginal` over the best of the others" in text


def test_the_picture_has_room_for_contenders_that_left(tmp_path: Path) -> None:
    """In the same row of every workload."""
    path = tmp_path / "run.svg"
    draw(path, report())
    assert path.stat().st_size > 10_000


def test_the_report_can_be_read_again() -> None:
    """From JSON, and so can those of earlier runs."""
    assert msgspec.json.decode(msgspec.json.encode(report()), type=RoutingReport) == report()

    kept = Path(targets.__file__).parent / "results" / "routing.json"
    assert msgspec.json.decode(kept.read_bytes(), type=RoutingReport).turns
