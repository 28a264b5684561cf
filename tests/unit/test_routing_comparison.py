"""What the routing comparison sends, what it makes of answers, and how it judges."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from deployments import processes
from gateway.errors import ConfigError
from gateway.simulation.trace import BLOCK_TOKENS, TraceRequest, trace_request
from loadtests.comparison.keeping import keep, replace
from loadtests.comparison.machine import Machine
from loadtests.comparison.naming import named
from loadtests.comparison.routing.client import Ask, Client, Job, Outcome, Play, outcome
from loadtests.comparison.routing.connection import Reply
from loadtests.comparison.routing.fleet import Contender
from loadtests.comparison.routing.match import LEAD_SHARE, Match
from loadtests.comparison.routing.plot import draw
from loadtests.comparison.routing.report import Report
from loadtests.comparison.routing.scores import OURS, Score, judge
from loadtests.comparison.routing.stretches import (
    SKIPPED_S,
    SPEED,
    TOKENS,
    Stretches,
    as_sent,
    renamed,
)
from loadtests.comparison.routing.turn import MOST_LATE_S, BadTurn, Turn, play, turn
from loadtests.texts import text

PATIENCE_S = 10.0


def answered(ttft_s: float = 0.1, e2e_s: float = 0.5, cached: int = 0) -> Outcome:
    """An answer of eleven tokens, by the clock, to a prompt of 100."""
    return Outcome(
        at_s=0,
        status=200,
        ttft_s=ttft_s,
        e2e_s=e2e_s,
        prompt_tokens=100,
        cached_tokens=cached,
        output_tokens=11,
    )


def score(e2e_mean_s: float, goodput: float) -> Score:
    """A score of which nothing else matters."""
    return Score(
        sent=1,
        hit_rate=0,
        ttft_mean_s=0,
        ttft_p50_s=0,
        ttft_p99_s=0,
        e2e_mean_s=e2e_mean_s,
        e2e_p50_s=0,
        e2e_p99_s=0,
        goodput=goodput,
        rejected=0,
        failed=0,
    )


def test_times_are_the_workloads() -> None:
    """A client's second is several of the workload."""
    found = Score.of([answered(0.1, 0.5), answered(0.3, 0.7)], PATIENCE_S)

    assert found.ttft_mean_s == pytest.approx(0.2 * SPEED)
    assert found.e2e_mean_s == pytest.approx(0.6 * SPEED)


def test_a_request_without_an_answer_has_waited_as_long_as_anybody_would() -> None:
    """Turning requests away, or losing them, makes no figure better."""
    outcomes = [answered(), answered(), Outcome(at_s=0, status=429), Outcome(at_s=0)]

    found = Score.of(outcomes, PATIENCE_S)

    assert found.e2e_mean_s == pytest.approx((0.5 + PATIENCE_S) / 2 * SPEED)
    assert found.goodput == 0.5
    assert (found.sent, found.rejected, found.failed) == (4, 1, 1)


def test_the_hit_rate_is_of_tokens_that_were_answered() -> None:
    """By the engines' count, long prompts weighing more."""
    outcomes = [answered(cached=90), answered(cached=0), Outcome(at_s=0)]

    assert Score.of(outcomes, PATIENCE_S).hit_rate == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "is_good"),
    [(3.9, 0.09, True), (4.1, 0.09, False), (3.9, 0.11, False)],
)
def test_goodput_counts_answers_within_both_limits(
    ttft_s: float, tpot_s: float, *, is_good: bool
) -> None:
    """To the first token, and for each of the workload's tokens after it."""
    e2e_s = ttft_s + tpot_s * 10 * TOKENS
    outcomes = [answered(ttft_s / SPEED, e2e_s / SPEED)]

    assert Score.of(outcomes, PATIENCE_S).goodput == (1.0 if is_good else 0.0)


def test_the_best_of_the_others_is_what_we_are_compared_with() -> None:
    """Round by round, the others' best being the best by its median."""
    rounds = {
        "slow": [score(9, 0.1), score(9, 0.1), score(9, 0.1)],
        OURS: [score(2, 0.9), score(4, 0.9), score(3, 0.9)],
        "fast": [score(2, 0.8), score(3, 0.9), score(3, 1.0)],
    }

    e2e, goodput = judge("any", rounds, is_strict=False)

    assert (e2e.best_other, goodput.best_other) == ("fast", "fast")
    assert (e2e.ratio.least, e2e.ratio.median, e2e.ratio.most) == pytest.approx((1.0, 1.0, 4 / 3))
    assert goodput.ratio.median == pytest.approx(1.0)
    assert e2e.is_met
    assert goodput.is_met


@pytest.mark.parametrize(
    ("e2e_s", "is_met", "is_met_strictly"),
    [(9.9, True, True), (10.0, True, False), (10.2, True, False), (10.4, False, False)],
)
def test_close_to_the_best_is_enough_unless_the_best_is_wanted(
    e2e_s: float, *, is_met: bool, is_met_strictly: bool
) -> None:
    """Three percent."""
    rounds = {OURS: [score(e2e_s, 0.5)], "other": [score(10.0, 0.5)]}

    assert judge("any", rounds, is_strict=False)[0].is_met is is_met
    assert judge("any", rounds, is_strict=True)[0].is_met is is_met_strictly


def test_goodput_of_nobody_is_no_reproach() -> None:
    """Where nobody answers in time all are equal; where only we do, we are better."""
    nobody = {OURS: [score(1, 0.0)], "other": [score(1, 0.0)]}
    only_we = {OURS: [score(1, 0.1)], "other": [score(1, 0.0)]}

    assert judge("any", nobody, is_strict=False)[1].ratio.median == 1.0
    assert judge("any", only_we, is_strict=True)[1].is_met


def test_nothing_is_judged_alone() -> None:
    """There has to be somebody to compare with."""
    assert judge("any", {OURS: [score(1, 1)]}, is_strict=False) == []
    assert judge("any", {"a": [score(1, 1)], "b": [score(1, 1)]}, is_strict=False) == []


def test_requests_are_sent_in_fewer_tokens_and_sooner() -> None:
    """What they share shrinks with them."""
    one = as_sent(trace_request(16.0, 3 * BLOCK_TOKENS + 64, 320, [1, 2, 3, 4]))
    other = as_sent(trace_request(16.0, 2 * BLOCK_TOKENS, 1, [1, 2]))

    assert one.arrived_s == 16.0 / SPEED
    assert (one.prompt_tokens, one.output_tokens) == ((3 * BLOCK_TOKENS + 64) // TOKENS, 20)
    assert other.output_tokens == 1
    assert text(one, "").startswith(text(other, ""))
    assert len(text(one, "")) == one.prompt_tokens * 4


def test_renamed_requests_share_among_themselves_only() -> None:
    """Another name is other text, from the first block on."""
    requests = [as_sent(trace_request(0, 2 * BLOCK_TOKENS, 1, [1, last])) for last in (2, 3)]

    one, other = (
        [text(request, "") for request in renamed(requests, salt)] for salt in (7, 1 << 63)
    )

    block = requests[0].prompt.key_bytes
    assert one[0][:block] == one[1][:block]
    assert one[0][block:] != one[1][block:]
    assert one[0][:block] != other[0][:block]


def test_stretches_follow_each_other() -> None:
    """Each begins at its own beginning, and no request is in two of them."""
    stretches = Stretches.generated("none", SKIPPED_S + 3.0)

    first, second = stretches.stretch(0, 1.0), stretches.stretch(1, 1.0)

    assert all(0 <= request.arrived_s < 1.0 for request in (*first, *second))
    assert first
    assert second
    assert not {r.prompt.keys[0] for r in first if r.prompt.keys} & {
        r.prompt.keys[0] for r in second if r.prompt.keys
    }


def test_a_trace_that_is_too_short_is_refused(tmp_path: Path) -> None:
    """With what there is and what it would take."""
    path = tmp_path / "short.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [1]}\n')

    with pytest.raises(ConfigError, match="lasts 0 s, and 30 s are needed"):
        Stretches.of_trace(path, 2.0, 30.0)


def event(content: str) -> bytes:
    """A server-sent event."""
    return f"data: {content}\n\n".encode()


USAGE = event(
    '{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,'
    '"prompt_tokens_details":{"cached_tokens":4}}}'
)
LAST = event("[DONE]")


def test_an_answer_counts_as_the_engine_says() -> None:
    """Times are from when the request was due."""
    body = event('{"choices":[{"delta":{"content":"x"}}]}') + USAGE + LAST
    reply = Reply(status=200, first_s=12.5, end_s=14.0, body=body)

    found = outcome(Ask(2.0, "x", 3), reply, due_s=12.0)

    assert found == Outcome(
        at_s=2.0,
        status=200,
        ttft_s=0.5,
        e2e_s=2.0,
        prompt_tokens=9,
        cached_tokens=4,
        output_tokens=3,
    )


@pytest.mark.parametrize(
    "body",
    [b"", USAGE, LAST, event('{"error":{"message":"gone"}}'), USAGE + event("{}") + LAST],
)
def test_an_answer_that_is_not_whole_is_none(body: bytes) -> None:
    """Cut off, without its usage, or ended by an error."""
    found = outcome(Ask(0.0, "x", 3), Reply(status=200, first_s=1, end_s=2, body=body), 0.0)

    assert found.status == 0
    assert found.flaw


def test_an_answer_of_another_length_is_none() -> None:
    """All that was asked for has to be there."""
    reply = Reply(status=200, first_s=1, end_s=2, body=USAGE + LAST)

    assert outcome(Ask(0.0, "x", 4), reply, 0.0).flaw


def test_a_rejection_is_told_from_a_broken_connection() -> None:
    """By its status."""
    assert outcome(Ask(0.0, "x", 3), Reply(status=429, body=b"full"), 0.0).status == 429
    assert outcome(Ask(0.0, "x", 3), Reply(body=b"closed"), 0.0).status == 0


class FakeEngine:
    """Answers all requests alike, once there are two of them, or never."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self.heard: list[bytes] = []
        self.opened = 0
        self._is_silent = is_silent
        self._two_are_here = asyncio.Event()
        self._ended: asyncio.Queue[None] = asyncio.Queue()

    @asynccontextmanager
    async def listening(self, connections: int) -> AsyncIterator[int]:
        """The port; in the end as many connections must have been closed."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
            for _ in range(connections):
                await self._ended.get()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self._answer(reader, writer)
        writer.close()
        self._ended.put_nowait(None)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        self.heard.append(await reader.readexactly(length))
        if self._is_silent:
            return
        if len(self.heard) > 1:
            self._two_are_here.set()
        await self._two_are_here.wait()
        body = USAGE + LAST
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


async def test_the_client_sends_each_request_at_its_time_and_keeps_connections() -> None:
    """The second is sent though the first has no answer yet; the third has a connection to use."""
    engine = FakeEngine()
    asks = [Ask(0.0, "one", 3), Ask(0.01, "two", 3), Ask(0.5, "three", 3)]

    async with engine.listening(connections=2) as port:
        played = await Client("127.0.0.1", port, Job(model="m", asks=asks, patience_s=30)).play()

    assert [found.status for found in played.outcomes] == [200, 200, 200]
    assert [b"one" in engine.heard[0], b"two" in engine.heard[1]] == [True, True]
    assert b"three" in engine.heard[2]
    assert engine.opened == 2


async def test_the_client_gives_up_when_its_patience_ends() -> None:
    """And says so, instead of waiting for ever."""
    job = Job(model="m", asks=[Ask(0.0, "one", 3)], patience_s=0.05)

    async with FakeEngine(is_silent=True).listening(connections=1) as port:
        played = await Client("127.0.0.1", port, job).play()

    assert played.outcomes == [Outcome(at_s=0.0, flaw="TimeoutError")]


def played(*outcomes: Outcome, late_s: float = 0.0) -> Play:
    """What a client tells of its requests."""
    return Play(outcomes=[*outcomes], late_s=late_s, cpus=0.1, busy_share=0.5)


def test_a_turn_that_nobody_answered_is_a_bad_one() -> None:
    """There is no score of a contender that is gone; one that turns all away has one."""
    gone = Outcome(at_s=0, flaw="ConnectionRefusedError")

    with pytest.raises(BadTurn, match=r"none of 2 requests was answered: 0: ConnectionRefused"):
        turn(played(gone, gone), lead_s=0)
    assert turn(played(gone, Outcome(at_s=0, status=429)), lead_s=0).score.goodput == 0


def test_what_leads_up_to_a_turn_does_not_count() -> None:
    """Only what is sent from then on."""
    early = Outcome(at_s=0.9, flaw="TimeoutError")

    assert turn(played(early, answered()), lead_s=0.0).score.failed == 1
    assert turn(played(early, Outcome(at_s=1.0, status=503)), lead_s=1.0).score.failed == 0


@pytest.mark.parametrize(("late_s", "is_doubtful"), [(MOST_LATE_S, False), (0.034, True)])
def test_a_turn_whose_client_was_late_is_not_to_be_trusted(
    late_s: float, *, is_doubtful: bool
) -> None:
    """It says how late."""
    assert ("34 ms late" in turn(played(answered(), late_s=late_s), 0).doubt) is is_doubtful


def test_a_contender_that_is_gone_makes_a_bad_turn() -> None:
    """Told by the client that plays it, in a process of its own."""
    nobody = Contender("gone", processes.free_port(), "m")

    with pytest.raises(BadTurn, match="none of 1 requests was answered"):
        play(nobody, [as_sent(trace_request(0.0, BLOCK_TOKENS, 16, [1]))], "a turn", 0.0)


def test_a_stretch_without_requests_is_a_bad_turn() -> None:
    """There is nothing to send."""
    with pytest.raises(BadTurn, match="no request"):
        play(Contender("any", 1, "m"), [], "a turn", 0.0)


class FakePlay:
    """Turns that fail as often as they are told to."""

    def __init__(self, failures: Mapping[str, int] | None = None) -> None:
        self._failures = dict(failures or {})
        """How often each turn fails before it succeeds, by the beginning of its title."""
        self.titles: list[str] = []

    def __call__(
        self, contender: Contender, requests: Sequence[TraceRequest], title: str, lead_s: float
    ) -> Turn:
        """A turn."""
        self.titles.append(title)
        name = title.removesuffix(", again")
        if self._failures.get(name, 0):
            self._failures[name] -= 1
            raise BadTurn("cut")
        return turn(played(answered()), 0)


def match(play: FakePlay) -> Match:
    """Of two contenders on two workloads."""
    contenders = [Contender(name, 1, "m") for name in ("one", "two")]
    stretches = [Stretches(name, []) for name in ("hot", "none")]
    return Match(contenders, stretches, 6.0, play, Console(quiet=True))


def test_in_each_round_another_contender_begins() -> None:
    """On every workload."""
    fake = FakePlay()
    found = match(fake)

    for number in range(2):
        found.round(number)

    assert fake.titles == [
        "hot, round 1, one",
        "hot, round 1, two",
        "none, round 1, one",
        "none, round 1, two",
        "hot, round 2, two",
        "hot, round 2, one",
        "none, round 2, two",
        "none, round 2, one",
    ]
    assert LEAD_SHARE * 6.0 == 2.0
    assert [len(rounds) for rounds in found.turns["hot"].values()] == [2, 2]


def test_a_bad_turn_is_played_once_more() -> None:
    """With new text; nothing is left of it."""
    fake = FakePlay({"hot, round 1, one": 1})
    found = match(fake)

    found.round(0)

    assert fake.titles[:2] == ["hot, round 1, one", "hot, round 1, one, again"]
    assert len(found.turns["hot"]["one"]) == 1
    assert found.dropped == {}


def test_who_fails_twice_leaves_that_workload() -> None:
    """With its reason, and with all its rounds; the others go on, and so does it elsewhere."""
    fake = FakePlay({"hot, round 2, one": 2})
    found = match(fake)

    for number in range(3):
        found.round(number)

    assert found.dropped == {"one on hot": "round 2: cut"}
    assert {name: len(rounds) for name, rounds in found.turns["hot"].items()} == {"two": 3}
    assert {name: len(rounds) for name, rounds in found.turns["none"].items()} == {
        "one": 3,
        "two": 3,
    }
    assert not [title for title in fake.titles if title.startswith("hot, round 3, one")]


def test_a_workload_that_all_have_left_is_told_of_no_more() -> None:
    """There is nobody to compare."""
    found = match(FakePlay({"hot, round 1, one": 2, "hot, round 1, two": 2}))

    found.round(0)

    assert list(found.turns) == ["none"]


def report() -> Report:
    """Two rounds, of which one is not to be trusted; one contender has left a workload."""
    good, late = (turn(played(answered(), late_s=late_s), 0) for late_s in (0.001, 0.034))
    return Report(
        machine=Machine(cpus=2, memory_gib=8, system="Linux", python="3.11", date="2026-01-01"),
        seconds=6.0,
        versions={},
        missing={"smg on hot": "round 2: cut"},
        turns={
            "hot": {OURS: [good, late], "round-robin": [good, good]},
            "none": {OURS: [good, good], "round-robin": [good, good], "smg": [good, good]},
        },
    )


def test_the_tables_tell_the_worst_turn_and_whom_not_to_trust() -> None:
    """And who has left."""
    console = Console(width=190, record=True, file=io.StringIO())

    report().print(console)

    told = console.export_text()
    assert "18 [to 34]" in told
    assert f"not to be trusted: hot, round 2, {OURS}: its client sent 34 ms late" in told
    assert "1 turns are not to be trusted" in " ".join(told.split())
    assert "smg on hot: round 2: cut" in told


def test_the_picture_has_room_for_who_has_left(tmp_path: Path) -> None:
    """In the same row everywhere."""
    path = tmp_path / "run.svg"

    draw(path, report())

    assert path.stat().st_size > 10_000


def test_a_report_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    """And can be read again."""
    path = tmp_path / "run.json"
    keep(path, msgspec.structs.replace(report(), turns={}))
    keep(path, report())

    assert msgspec.json.decode(path.read_bytes(), type=Report) == report()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    """Whole, and with nothing beside it."""
    path = tmp_path / "run.txt"
    path.write_text("earlier")

    def break_off(new: Path) -> None:
        new.write_text("hal")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        replace(path, break_off)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("asked", "expected"), [("b", ["b"]), ("b, a", ["b", "a"]), ("a,a,", ["a"])]
)
def test_names_are_taken_in_their_order(asked: str, expected: list[str]) -> None:
    """Each once."""
    assert named(asked, ["a", "b"], "--only") == expected


@pytest.mark.parametrize(("asked", "why"), [("gatewy", "did you mean|gateway"), (" ,", "at least")])
def test_a_name_that_is_not_known_is_refused(asked: str, why: str) -> None:
    """With the option that it was given to."""
    with pytest.raises(ConfigError, match=rf"^--only: .*({why})"):
        named(asked, ["gateway"], "--only")
