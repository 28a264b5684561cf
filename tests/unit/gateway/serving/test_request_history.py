"""History of requests: summaries wait for their tokens, and are kept for a while."""

import datetime as dt
from dataclasses import dataclass, field

import pytest

from gateway.routing.cost_model import CostModel
from gateway.routing.decision import Decision
from gateway.routing.fleet import Replica
from gateway.routing.policy import Candidate
from gateway.serving.request_history import EARLY_TIMEOUT_S, REPORT_TIMEOUT_S, RequestHistory
from gateway.serving.request_summary import RequestSummary
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.telemetry.update import Finished

FACTS = EngineFacts(
    engine="sim", routes=(), kv_tokens=0, block_size=0, max_sequences=1, max_model_len=10
)
CHOSEN = Candidate(
    replica=Replica("r1", ReplicaMetadata(model="m", host="h", port=1, key="", facts=FACTS)),
    cached_keys=0,
    cached_tokens=0.0,
    running=0,
    waiting=0,
    pending_tokens=0.0,
    free_tokens=0.0,
)


@dataclass
class Bench:
    """A history whose clock stands still, and all that it passes on."""

    now_s: float = 0.0
    is_heard: bool = True
    passed_on: list[RequestSummary] = field(default_factory=list)
    reports: list[Finished | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history = RequestHistory(lambda: self.now_s, lambda _: self.is_heard, size=3)
        self.history.add_listener(self.passed_on.append)

    def end(self, name: str, decision: Decision | None = None) -> None:
        """A request ends."""
        self.history.record_ended(summary(name), decision, self.reports.append)


def summary(name: str) -> RequestSummary:
    """The summary of a request with this id."""
    return RequestSummary(
        time=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        request_id=name,
        router="a",
        client="192.0.2.1",
        route="/v1/chat/completions",
        priority="interactive",
        status=200,
        outcome="answered",
        queue_s=0.0,
        e2e_s=1.0,
    )


def decision(id_: int) -> Decision:
    """A decision with this id."""
    return Decision(
        id=id_,
        request_id="r",
        model="m",
        policy="marginal",
        decided_s=0.0,
        candidates=[CHOSEN],
        costs=[0.0],
        index=0,
        prompt_tokens=1.0,
        output_tokens=1.0,
        ttft_s=0.0,
        estimates=CostModel().estimates,
        has_session=False,
    )


def finished(id_: int) -> Finished:
    """The report of an engine on that decision."""
    return Finished(
        id=id_,
        prompt_tokens=30,
        cached_tokens=16,
        completion_tokens=5,
        prompt_bytes=90,
        queue_s=0.0,
        prefill_s=0.0,
        decode_s=0.0,
        running=1.0,
    )


@pytest.mark.parametrize("is_early", [True, False])
def test_tokens_come_before_or_after_the_end(is_early: bool) -> None:
    """Either way the summary is passed on once, with them."""
    bench = Bench()
    if is_early:
        bench.history.record_finished(decision(1), finished(1))
    bench.end("q", decision(1))
    if not is_early:
        assert bench.passed_on == []
        bench.history.record_finished(decision(1), finished(1))

    (only,) = bench.passed_on
    assert (only.prompt_tokens, only.cached_tokens, only.completion_tokens) == (30, 16, 5)
    assert bench.reports == [finished(1)]


def test_a_report_that_does_not_come_is_not_waited_for_long() -> None:
    """The summary is passed on without tokens."""
    bench = Bench()
    bench.end("q", decision(1))
    bench.now_s = REPORT_TIMEOUT_S - 0.1
    bench.history.expire()
    assert bench.passed_on == []

    bench.now_s = REPORT_TIMEOUT_S
    bench.history.expire()

    assert (bench.passed_on[0].prompt_tokens, bench.reports) == (None, [None])


@pytest.mark.parametrize("reason", ["nothing was sent", "telemetry does not arrive"])
def test_where_no_report_can_come_none_is_waited_for(reason: str) -> None:
    """The summary is passed on at once."""
    bench = Bench(is_heard=reason == "nothing was sent")
    bench.end("q", None if reason == "nothing was sent" else decision(1))

    assert [each.request_id for each in bench.passed_on] == ["q"]


def test_a_request_is_found_while_it_waits_and_afterwards() -> None:
    """Until too many others have ended."""
    bench = Bench()
    bench.end("q", decision(1))
    assert [each.request_id for each in bench.history.ended("q")] == ["q"]

    bench.history.record_finished(decision(1), finished(1))
    assert bench.history.ended("q")[0].prompt_tokens == 30
    for name in "abc":
        bench.end(name)

    assert bench.history.ended("q") == []
    assert len(bench.history.ended("c")) == 1


def test_a_repeated_id_finds_all_its_requests() -> None:
    """The newest first: clients choose their ids."""
    bench = Bench()
    bench.end("q")
    bench.end("q", decision(1))

    assert [each.prompt_tokens for each in bench.history.ended("q")] == [None, None]
    assert len(bench.history.ended("q")) == 2


def test_refused_requests_drive_nobody_out() -> None:
    """They are passed on, and not kept."""
    bench = Bench()
    bench.end("q")
    for _ in range(10):
        bench.history.record_refused(summary("stranger"))

    assert len(bench.passed_on) == 11
    assert len(bench.history.ended("q")) == 1
    assert bench.history.ended("stranger") == []


def test_nothing_is_lost_at_the_end() -> None:
    """What still waits is passed on without tokens, the oldest first."""
    bench = Bench()
    bench.end("a", decision(1))
    bench.end("b", decision(2))
    bench.history.close()

    assert [each.request_id for each in bench.passed_on] == ["a", "b"]


def test_reports_that_nobody_asks_for_do_not_pile_up() -> None:
    """Such as those on copies for shadow models."""
    bench = Bench()
    for id_ in range(10):
        bench.history.record_finished(decision(id_), finished(id_))
    bench.end("old", decision(0))

    assert bench.passed_on == []
    assert len(bench.history._early) == 3


def test_a_report_waits_for_its_request_only_so_long() -> None:
    """A client may read slowly, but most reports that nobody has asked for never will be."""
    bench = Bench()
    bench.history.record_finished(decision(1), finished(1))
    bench.history.record_finished(decision(2), finished(2))
    bench.now_s = EARLY_TIMEOUT_S - 1
    bench.end("slow", decision(1))
    bench.now_s = EARLY_TIMEOUT_S
    bench.history.record_finished(decision(3), finished(3))
    bench.end("later", decision(2))

    assert [each.request_id for each in bench.passed_on] == ["slow"]
    assert list(bench.history._early) == [3]
