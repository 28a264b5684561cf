"""What the routing comparison sends, what it makes of answers, and how it judges."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.simulation.trace import BLOCK_TOKENS, trace_request
from loadtests.comparison.routing_client import Ask, Client, Job, Outcome, outcome
from loadtests.comparison.routing_connection import Reply
from loadtests.comparison.routing_scores import OURS, Score, judge
from loadtests.comparison.routing_stretches import (
    SKIPPED_S,
    SPEED,
    TOKENS,
    Stretches,
    as_sent,
    renamed,
)
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
