"""The figures, the table and the picture of a load test."""

from pathlib import Path

import matplotlib as mpl
import msgspec
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from loadtests.users.figures import Span, Spread
from loadtests.users.outcome import Fate, Outcome
from loadtests.users.picture import Scene, draw
from loadtests.users.results import Look, Results, Setting
from loadtests.users.table import remarks, table

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


def answered(model: str, at_s: float) -> Outcome:
    """A request of two seconds, 10 tokens, a quarter of its prompt cached."""
    return Outcome(
        model=model,
        due_s=100 + at_s,
        fate=Fate.ANSWERED,
        e2e_s=2.0,
        ttft_s=0.5,
        itl_s=0.1,
        prompt_tokens=40,
        cached_tokens=10,
        completion_tokens=10,
    )


def ended(fate: Fate, reason: str) -> Outcome:
    """A request without an answer."""
    return Outcome(model="a", due_s=101.0, fate=fate, reason=reason, e2e_s=0.5)


OUTCOMES = [
    *(answered("a", at_s) for at_s in range(8)),
    answered("b", 8.0),
    ended(Fate.REJECTED, "429 overloaded"),
    ended(Fate.FAILED, "no [DONE]"),
    ended(Fate.FAILED, "no [DONE]"),
    ended(Fate.FAILED, "500"),
]
LOOKS = [Look(at_s=100.0 + at_s, users=at_s, replicas={"a": 2, "c": 1}) for at_s in range(0, 10, 2)]
"""Nine users are never there."""
RESULTS = Results.of(SETTING, OUTCOMES, LOOKS, sent_until_s=108.5)


def test_requests_are_counted_by_their_ends() -> None:
    """Failures by their reasons, rejections apart from them."""
    total = RESULTS.total

    assert (total.requests, total.answered, total.rejected, total.failed) == (13, 9, 1, 3)
    assert total.failures == {"no [DONE]": 2, "500": 1}
    assert total.rejections == {"429 overloaded": 1}


def test_rates_are_over_the_whole_time() -> None:
    """From the beginning to the end of the last answer."""
    assert RESULTS.seconds == 10
    assert RESULTS.total.over_all.requests_per_s == pytest.approx(0.9)
    assert RESULTS.total.over_all.output_tokens_per_s == pytest.approx(9.0)
    assert RESULTS.total.hit_rate == 0.25


def test_the_peak_has_rates_of_its_own() -> None:
    """Neither users who are still to come nor the last answers make a server look slow."""
    users = [1, 5, 9, 9, 9, 9]
    looks = [
        Look(at_s=100.0 + 2 * number, users=count, replicas={})
        for number, count in enumerate(users)
    ]
    steady = msgspec.structs.replace(SETTING, shape="steady")
    answers = [answered("a", 3.0), answered("a", 4.5), answered("a", 20.0)]
    results = Results.of(steady, answers, looks, sent_until_s=107.0)

    # from the first look at nine users to the last one before the end of sending
    assert results.peak == Span(begin_s=4.0, end_s=6.0)
    assert results.total.at_peak is not None
    assert results.total.at_peak.requests_per_s == pytest.approx(1 / 2)
    # of the first answer's tokens, that come from 3.5 to 5, two thirds, of the second's, from 5 to
    # 6.5, as many
    assert results.total.at_peak.output_tokens_per_s == pytest.approx((2 / 3 + 2 / 3) * 10 / 2)
    assert results.seconds == 22
    assert results.total.over_all.requests_per_s == pytest.approx(3 / 22)


def test_users_that_are_still_leaving_are_no_peak() -> None:
    """After a spike some still wait for their answers, and send no more."""
    spike = msgspec.structs.replace(SETTING, shape="spike", run_time_s=20.0)
    looks = [Look(at_s=100.0 + at_s, users=9, replicas={}) for at_s in range(8, 18, 2)]

    assert spike.peak(looks, 120.0) == Span(begin_s=8.0, end_s=10.0)


def test_a_test_may_have_no_peak() -> None:
    """Where not all users have come."""
    assert RESULTS.peak is None
    assert RESULTS.total.at_peak is None


def test_a_trace_is_at_its_peak_while_it_is_sent() -> None:
    """And tells how late it was sent, and how much of it was not."""
    late = [msgspec.structs.replace(answered("a", at_s), late_s=0.25) for at_s in range(4)]
    results = Results.of(TRACE, late, [], sent_until_s=104.0, unsent=1200)

    assert results.peak == Span(begin_s=0.0, end_s=4.0)
    assert results.late_s is not None
    assert results.late_s.p50 == 0.25
    told = [*remarks(results)]
    assert told[0] == "the time was over before the trace: 1,200 requests were not sent"
    assert told[1].startswith("sent late by 250.0 ms (p99: 250.0 ms)")
    assert RESULTS.late_s is None


def test_what_is_cut_is_counted_apart() -> None:
    """It is no failure of the server's, and has no time."""
    results = Results.of(SETTING, [*OUTCOMES, ended(Fate.CUT, "")], [], sent_until_s=108.0)

    total = results.total
    assert (total.requests, total.answered, total.cut, total.failed) == (14, 9, 1, 3)
    assert total.e2e_s == RESULTS.total.e2e_s
    assert "cut 1 times: still on its way at the end" in [*remarks(results)]


@pytest.mark.parametrize("outcomes", [[], [ended(Fate.CUT, "")], [ended(Fate.REJECTED, "429")]])
def test_a_test_without_answers_says_so(outcomes: list[Outcome], tmp_path: Path) -> None:
    """In its first remark; there is a table and a picture even so."""
    nothing = Results.of(SETTING, outcomes, [], sent_until_s=100.0)

    assert next(remarks(nothing)) == "no request was answered"
    assert table(nothing).row_count == 1
    draw(tmp_path / "plot.svg", nothing, outcomes)


def test_many_reasons_are_told_in_few_lines() -> None:
    """Where a server puts something new into each message."""
    failed = [ended(Fate.FAILED, f"500 request {number} was lost") for number in range(40)]
    told = [*remarks(Results.of(SETTING, [*OUTCOMES, *failed], [], sent_until_s=100.0))]

    assert len(told) < 15
    assert told[-1] == "failed 32 times for 32 other reasons"


def test_each_model_has_its_figures() -> None:
    """What was sent to it, and nothing else."""
    assert {name: figures.answered for name, figures in RESULTS.models.items()} == {"a": 8, "b": 1}
    assert RESULTS.models["b"].failed == 0
    assert RESULTS.models["b"].tokens_per_s is not None
    assert RESULTS.models["b"].tokens_per_s.p50 == 5.0


def test_only_answers_have_times() -> None:
    """A quick rejection makes nothing look fast."""
    assert RESULTS.total.e2e_s == Spread(mean=2.0, p50=2.0, p90=2.0, p95=2.0, p99=2.0, most=2.0)

    nothing = Results.of(SETTING, [ended(Fate.FAILED, "500")], [], sent_until_s=101.0)
    assert nothing.total.ttft_s is None
    assert nothing.total.hit_rate is None


def test_a_spread_is_that_of_its_values() -> None:
    """Percentiles lie between the values, and never beyond them."""
    spread = Spread.of(range(1, 101))

    assert spread is not None
    assert (spread.mean, spread.most) == (50.5, 100)
    assert [spread.p50, spread.p90, spread.p95, spread.p99] == pytest.approx(
        [50.5, 90.1, 95.05, 99.01]
    )
    assert Spread.of([3.0]) == Spread(mean=3.0, p50=3.0, p90=3.0, p95=3.0, p99=3.0, most=3.0)
    assert Spread.of([]) is None


def test_a_trace_has_no_users_to_speak_of() -> None:
    """Other tests are told apart by their shape and their users, too."""
    assert SETTING.title == "chat, ramp, up to 9 users"
    assert TRACE.title == "trace"


def test_the_table_has_a_row_for_each_model_and_one_for_all() -> None:
    """And the reasons follow it."""
    console = Console(width=200, record=True, quiet=False)
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


def drawn(path: Path, results: Results, outcomes: list[Outcome]) -> str:
    """The words of a picture."""
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text
        draw(path, results, outcomes)
    return path.read_text()


def test_the_picture_has_what_was_seen(tmp_path: Path) -> None:
    """A panel for replicas, and one for what was not answered, only where there is any."""
    path = tmp_path / "plot.svg"
    whole = drawn(path, RESULTS, OUTCOMES)
    good = OUTCOMES[:9]
    less = drawn(path, Results.of(SETTING, good, [], sent_until_s=108.0), good)

    title = "chat, ramp, up to 9 users: 9 answered, 1 rejected, 3 failed, 0 cut, 25% of prompt"
    for words in (title, "tokens/s", ">a<", ">b<"):
        assert words in whole
    assert ">peak<" not in whole
    trace = Results.of(TRACE, good, [], sent_until_s=108.0)
    sent = drawn(path, trace, good)
    assert ">peak<" in sent
    assert ">requests/s<" in sent
    assert ">users<" not in sent
    for words in (">replicas<", ">rejected<", ">failed<", ">requests in<"):
        assert words in whole
        assert words not in less


def test_a_picture_is_cut_into_pieces_of_one_length(tmp_path: Path) -> None:
    """Or the rates of a shorter one at the end would seem to fall."""
    outcomes = [answered("a", at_s / 10) for at_s in range(90)]  # ends at 10.9 s
    results = Results.of(SETTING, outcomes, [], sent_until_s=109.0)
    scene = Scene(results, outcomes)
    figure = Figure()
    scene.draw_tokens(axes := figure.add_subplot())

    (line,) = axes.get_lines()
    times, rates = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert [*times] == pytest.approx([10.9 * (piece + 0.5) / 5 for piece in range(5)])
    assert rates.sum() * 10.9 / 5 == pytest.approx(900)


def test_rejections_have_no_place_among_first_tokens() -> None:
    """At the bottom of that panel they would look like answers at once."""
    scene = Scene(RESULTS, OUTCOMES)
    figure = Figure()
    waits, rest = figure.subplots(2)
    scene.draw_waits(waits)
    scene.draw_unanswered(rest)

    assert min(np.asarray(line.get_ydata()).min() for line in waits.get_lines()) == 0.5
    assert sum(bar.get_height() for bar in rest.patches) == 4
