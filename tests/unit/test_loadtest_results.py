"""The figures, the table and the picture of a load test."""

from pathlib import Path

import matplotlib as mpl
import msgspec
import pytest
from rich.console import Console

from loadtests.users.outcome import Fate, Outcome
from loadtests.users.picture import draw
from loadtests.users.results import Look, Results, Setting, Spread
from loadtests.users.table import reasons, table

SETTING = Setting(
    workload="chat", shape="ramp", users=9, seed="1", host="http://127.0.0.1", begun_s=100.0
)


def answered(model: str, at_s: float) -> Outcome:
    """A request of two seconds, 10 tokens, a quarter of its prompt cached."""
    return Outcome(
        model=model,
        sent_s=100 + at_s,
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
    return Outcome(model="a", sent_s=101.0, fate=fate, reason=reason, e2e_s=0.5)


OUTCOMES = [
    *(answered("a", at_s) for at_s in range(8)),
    answered("b", 8.0),
    ended(Fate.REJECTED, "429 overloaded"),
    ended(Fate.FAILED, "no [DONE]"),
    ended(Fate.FAILED, "no [DONE]"),
    ended(Fate.FAILED, "500"),
]
LOOKS = [Look(at_s=100.0 + at_s, users=at_s, replicas={"a": 2, "c": 1}) for at_s in range(0, 10, 2)]
RESULTS = Results.of(SETTING, OUTCOMES, LOOKS)


def test_requests_are_counted_by_their_ends() -> None:
    """Failures by their reasons, rejections apart from them."""
    total = RESULTS.total

    assert (total.requests, total.answered, total.rejected, total.failed) == (13, 9, 1, 3)
    assert total.failures == {"no [DONE]": 2, "500": 1}
    assert total.rejections == {"429 overloaded": 1}


def test_rates_are_over_the_whole_time() -> None:
    """From the beginning to the end of the last answer."""
    assert RESULTS.seconds == 10
    assert RESULTS.total.requests_per_s == pytest.approx(0.9)
    assert RESULTS.total.output_tokens_per_s == pytest.approx(9.0)
    assert RESULTS.total.hit_rate == 0.25


def test_each_model_has_its_figures() -> None:
    """What was sent to it, and nothing else."""
    assert {name: figures.answered for name, figures in RESULTS.models.items()} == {"a": 8, "b": 1}
    assert RESULTS.models["b"].failed == 0
    assert RESULTS.models["b"].tokens_per_s is not None
    assert RESULTS.models["b"].tokens_per_s.p50 == 5.0


def test_only_answers_have_times() -> None:
    """A quick rejection makes nothing look fast."""
    assert RESULTS.total.e2e_s == Spread(mean=2.0, p50=2.0, p90=2.0, p95=2.0, p99=2.0, most=2.0)

    nothing = Results.of(SETTING, [ended(Fate.FAILED, "500")], [])
    assert nothing.total.ttft_s is None
    assert nothing.total.hit_rate is None


def test_a_spread_is_that_of_its_values() -> None:
    """Percentiles lie between the values, and never beyond them."""
    spread = Spread.of(range(1, 101))

    assert spread is not None
    assert (spread.mean, spread.most) == (50.5, 100)
    assert [spread.p50, spread.p90, spread.p95, spread.p99] == pytest.approx(
        [50.5, 90.9, 95.95, 99.99]
    )
    assert Spread.of([3.0]) == Spread(mean=3.0, p50=3.0, p90=3.0, p95=3.0, p99=3.0, most=3.0)
    assert Spread.of([]) is None


def test_a_trace_has_no_users_to_speak_of() -> None:
    """Other tests are told apart by their shape and their users, too."""
    assert SETTING.title == "chat, ramp, up to 9 users"
    assert msgspec.structs.replace(SETTING, workload="trace").title == "trace"


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
    assert [*reasons(RESULTS)] == [
        "rejected 1 times: 429 overloaded",
        "failed 2 times: no [DONE]",
        "failed 1 times: 500",
    ]


def test_the_picture_has_what_was_seen(tmp_path: Path) -> None:
    """A panel for replicas only where the server has told of them."""
    path = tmp_path / "plot.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text
        draw(path, RESULTS, OUTCOMES)
        whole = path.read_text()
        draw(path, Results.of(SETTING, OUTCOMES, []), OUTCOMES)
        less = path.read_text()

    title = "chat, ramp, up to 9 users: 9 answered, 1 rejected, 3 failed, 25% of prompt tokens"
    for words in (title, "tokens/s", "rejected<", "failed<", ">a<", ">b<"):
        assert words in whole
    assert ">replicas<" in whole
    assert ">replicas<" not in less
