"""Summaries of outcomes; results, table and picture of a locust test."""

from pathlib import Path

import matplotlib as mpl
import msgspec
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from loadtests.loadgen.outcome import RequestOutcome, Status
from loadtests.loadgen.summary import Distribution, TimeSpan
from loadtests.locust_users.options import Setting
from loadtests.locust_users.plot import Plot, draw
from loadtests.locust_users.results import Observation, Results, peak_of, remarks, table

SETTING = Setting(
    workload="chat",
    shape="ramp",
    users=9,
    run_time_s=8.0,
    scale=1.0,
    think_scale=0.1,
    trace="",
    trace_speed=1.0,
    seed="1",
    host="http://127.0.0.1",
    begun_s=100.0,
)
TRACE = msgspec.structs.replace(SETTING, workload="trace")


def answered(model: str, at_s: float) -> RequestOutcome:
    """A request of two seconds, 10 tokens, a quarter of its prompt cached."""
    return RequestOutcome(
        model=model,
        due_s=100 + at_s,
        status=Status.ANSWERED,
        e2e_s=2.0,
        ttft_s=0.5,
        itl_s=0.1,
        prompt_tokens=40,
        cached_tokens=10,
        completion_tokens=10,
    )


def unanswered(status: Status, reason: str) -> RequestOutcome:
    """A request without an answer."""
    return RequestOutcome(model="a", due_s=101.0, status=status, reason=reason, e2e_s=0.5)


GOOD = [*(answered("a", at_s) for at_s in range(8)), answered("b", 8.0)]
OUTCOMES = [
    *GOOD,
    unanswered(Status.REJECTED, "429 overloaded"),
    unanswered(Status.FAILED, "no [DONE]"),
    unanswered(Status.FAILED, "no [DONE]"),
    unanswered(Status.FAILED, "500"),
]
SEEN = [
    Observation(at_s=100.0 + at_s, users=at_s, replicas={"a": 2, "c": 1})
    for at_s in range(0, 10, 2)
]
"""Nine users are never there."""
RESULTS = Results.of(SETTING, OUTCOMES, SEEN, stopped_sending_s=108.5)


def results(setting: Setting, outcomes: list[RequestOutcome], **options: float) -> Results:
    """Results without observations."""
    options = {"stopped_sending_s": 108.0} | options
    return Results.of(setting, outcomes, [], **options)  # type: ignore[arg-type] # unsent is whole


def test_requests_are_counted_by_status_and_reason() -> None:
    """Rejections apart from failures, and each model apart from the others."""
    total = RESULTS.total

    assert (total.requests, total.answered, total.rejected, total.failed) == (13, 9, 1, 3)
    assert total.failures == {"no [DONE]": 2, "500": 1}
    assert total.rejections == {"429 overloaded": 1}
    assert {name: summary.answered for name, summary in RESULTS.models.items()} == {"a": 8, "b": 1}
    assert RESULTS.models["b"].failed == 0


def test_rates_are_over_the_whole_time() -> None:
    """From the start to the end of the last answer."""
    assert RESULTS.seconds == 10
    assert RESULTS.total.over_all is not None
    assert RESULTS.total.over_all.requests_per_s == pytest.approx(0.9)
    assert RESULTS.total.over_all.output_tokens_per_s == pytest.approx(9.0)
    assert RESULTS.total.hit_rate == 0.25


def test_the_peak_has_rates_of_its_own() -> None:
    """Neither users who are still to come nor the last answers make a server look slow."""
    seen = [
        Observation(at_s=100.0 + 2 * number, users=count, replicas={})
        for number, count in enumerate([1, 5, 9, 9, 9, 9])
    ]
    steady = msgspec.structs.replace(SETTING, shape="steady")
    answers = [answered("a", 3.0), answered("a", 4.5), answered("a", 20.0)]
    found = Results.of(steady, answers, seen, stopped_sending_s=107.0)

    # from the first observation of nine users to the last one before the end of sending
    assert found.peak == TimeSpan(begin_s=4.0, end_s=6.0)
    assert found.total.at_peak is not None
    assert found.total.at_peak.requests_per_s == pytest.approx(1 / 2)
    # two thirds of the first answer's tokens (from 3.5 to 5) and of the second's (from 5 to 6.5)
    assert found.total.at_peak.output_tokens_per_s == pytest.approx((2 / 3 + 2 / 3) * 10 / 2)
    assert RESULTS.peak is None  # not all users have come
    assert RESULTS.total.at_peak is None


def test_users_that_are_leaving_are_not_a_peak() -> None:
    """After a spike some still wait for their answers, and send nothing more."""
    spike = msgspec.structs.replace(SETTING, shape="spike", run_time_s=20.0)
    seen = [Observation(at_s=100.0 + at_s, users=9, replicas={}) for at_s in range(8, 18, 2)]

    assert peak_of(spike, seen, 120.0) == TimeSpan(begin_s=8.0, end_s=10.0)


def test_a_trace_is_at_its_peak_while_it_is_sent() -> None:
    """Its results have how late it was sent, and how much of it was not."""
    late = [msgspec.structs.replace(answered("a", at_s), late_s=0.25) for at_s in range(4)]
    found = results(TRACE, late, stopped_sending_s=104.0, unsent=1200)

    assert found.peak == TimeSpan(begin_s=0.0, end_s=4.0)
    assert found.late_s is not None
    assert found.late_s.p50 == 0.25
    lines = [*remarks(found)]
    assert lines[0] == "the time was over before the trace: 1,200 requests were not sent"
    assert lines[1].startswith("sent late by 250.0 ms (p99: 250.0 ms)")
    assert RESULTS.late_s is None


def test_only_answers_have_times() -> None:
    """A quick rejection or a cut request makes nothing look fast."""
    found = results(SETTING, [*OUTCOMES, unanswered(Status.CUT, "")])

    assert found.total.cut == 1
    assert found.total.e2e_s == RESULTS.total.e2e_s
    assert found.total.e2e_s == Distribution(mean=2.0, p50=2.0, p90=2.0, p95=2.0, p99=2.0, most=2.0)
    assert "cut 1 times: still in flight at the end" in [*remarks(found)]


@pytest.mark.parametrize(
    "outcomes", [[], [unanswered(Status.CUT, "")], [unanswered(Status.REJECTED, "429")]]
)
def test_a_test_without_answers_says_so(outcomes: list[RequestOutcome], tmp_path: Path) -> None:
    """In its first remark; it has a table and a picture even so."""
    nothing = results(SETTING, outcomes, stopped_sending_s=100.0)

    assert nothing.total.ttft_s is None
    assert nothing.total.hit_rate is None
    assert next(remarks(nothing)) == "no request was answered"
    assert table(nothing).row_count == 1
    draw(tmp_path / "plot.svg", nothing, outcomes)


def test_many_reasons_are_shown_in_few_lines() -> None:
    """Some servers put something new into each message."""
    failed = [unanswered(Status.FAILED, f"500 request {number} was lost") for number in range(40)]
    lines = [*remarks(results(SETTING, [*OUTCOMES, *failed]))]

    assert len(lines) < 15
    assert lines[-1] == "failed 32 times for 32 other reasons"


def test_percentiles_are_interpolated() -> None:
    """They lie between the values, and never beyond them."""
    found = Distribution.of(range(1, 101))

    assert found is not None
    assert (found.mean, found.most) == (50.5, 100)
    assert [found.p50, found.p90, found.p95, found.p99] == pytest.approx([50.5, 90.1, 95.05, 99.01])
    assert Distribution.of([]) is None


def test_the_table_has_a_row_for_each_model_and_one_for_all() -> None:
    """The reasons follow it."""
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(RESULTS))

    rows = [line.split("│")[1:5] for line in captured.get().splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["a", "12", "8", "1"],
        ["b", "1", "1", "0"],
        ["all", "13", "9", "1"],
    ]
    assert [*remarks(RESULTS)] == [
        "rejected 1 times: 429 overloaded",
        "failed 2 times: no [DONE]",
        "failed 1 times: 500",
    ]


def drawn(path: Path, found: Results, outcomes: list[RequestOutcome]) -> str:
    """The words of a picture."""
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text
        draw(path, found, outcomes)
    return path.read_text()


def test_the_picture_has_panels_for_what_there_is(tmp_path: Path) -> None:
    """Replicas and unanswered requests only where there are any; users, or a trace's rate."""
    path = tmp_path / "plot.svg"
    whole = drawn(path, RESULTS, OUTCOMES)
    less = drawn(path, results(SETTING, GOOD), GOOD)
    trace = drawn(path, results(TRACE, GOOD), GOOD)

    title = "chat, ramp, up to 9 users: 9 answered, 1 rejected, 3 failed, 0 cut, 25% of prompt"
    for words in (title, "tokens/s", ">a<", ">b<", ">users<"):
        assert words in whole
    for words in (">replicas<", ">rejected<", ">failed<", ">requests in<"):
        assert words in whole
        assert words not in less
    assert ">peak<" not in whole
    for words in (">trace: 9 answered", ">peak<", ">requests/s<"):
        assert words in trace
    assert ">users<" not in trace


def test_the_picture_has_bins_of_equal_length(tmp_path: Path) -> None:
    """The rates of a shorter one at the end would seem to fall; no token is lost."""
    outcomes = [answered("a", at_s / 10) for at_s in range(90)]  # ends at 10.9 s
    plot = Plot(results(SETTING, outcomes, stopped_sending_s=109.0), outcomes)
    plot.draw_tokens(axes := Figure().add_subplot())

    (line,) = axes.get_lines()
    times, rates = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert [*times] == pytest.approx([10.9 * (number + 0.5) / 5 for number in range(5)])
    assert rates.sum() * 10.9 / 5 == pytest.approx(900)
