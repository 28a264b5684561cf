"""The overhead benchmark's own parts: what it counts, and how it judges."""

import asyncio
from collections.abc import Iterator

import pytest

from loadtests import targets
from loadtests.measurement import Sample
from loadtests.overhead import judge
from loadtests.stream_client import BrokenAnswer, Job, run
from loadtests.targets import HOST, MODEL, Target, Unavailable


@pytest.fixture(scope="module")
def engine() -> Iterator[Target]:
    """The benchmark's own simulated engine."""
    with targets.engine() as started:
        yield started


def job(model: str = MODEL, max_s: float = 60, max_requests: int = 5) -> Job:
    """Two clients that ask for four tokens a stream."""
    return Job(model=model, clients=2, chunks=4, max_s=max_s, max_requests=max_requests)


def test_the_client_counts_what_comes(engine: Target) -> None:
    """Each request brings its tokens, three events around them, and a first byte."""
    result = asyncio.run(run(HOST, engine.port, job()))
    assert (result.requests, result.events, len(result.ttft_s)) == (5, 5 * (4 + 3), 5)
    assert 0 < min(result.ttft_s) < result.elapsed_s


def test_the_client_stops_in_time(engine: Target) -> None:
    """The time limit ends the job as well, however many requests it may send."""
    result = asyncio.run(run(HOST, engine.port, job(max_s=0.3, max_requests=10**9)))
    assert result.requests > 0
    assert result.elapsed_s < 10


def test_an_error_is_no_answer(engine: Target) -> None:
    """A refusal is not counted as a very fast request."""
    with pytest.raises(BrokenAnswer, match="404"):
        asyncio.run(run(HOST, engine.port, job(model="another")))


def test_load_stays_on_this_machine() -> None:
    """A gateway elsewhere is not measured."""
    with pytest.raises(Unavailable), targets.gateway("http://192.0.2.1:8000"):
        pass


def sample(requests_per_s: float, cpu_s: float, ttft_ms: float) -> Sample:
    """What a target might have done in a round."""
    return Sample(
        requests_per_s=requests_per_s,
        chunks_per_s=67 * requests_per_s,
        cpu_s_per_1000=cpu_s,
        beside_cpus=0,
        ttft_p50_ms=ttft_ms,
        ttft_p99_ms=ttft_ms,
        burst_ttft_p50_ms=ttft_ms,
    )


@pytest.mark.parametrize(
    ("ours", "verdicts"),
    [
        (sample(110, 0.5, 0.9), [True, True, True, True]),
        (sample(109, 0.5, 0.9), [True, True, False, True]),
        (sample(110, 0.6, 0.9), [True, True, True, False]),
        (sample(110, 0.5, 1.0), [False, False, True, True]),
    ],
)
def test_the_bars(ours: Sample, verdicts: list[bool]) -> None:
    """Time is judged against the engine alone, requests and CPU against vLLM's router."""
    samples = {
        "direct": [sample(500, 0, 0.125)],
        "gateway": [ours],
        "vllm-router cache_aware": [sample(100, 0.5, 0.5)],
    }
    assert [bar.is_met for bar in judge(samples)] == verdicts


def test_rounds_are_compared_with_each_other() -> None:
    """A round in which the machine was slow for everybody changes no ratio."""
    samples = {
        "direct": [sample(500, 0, 0.1), sample(50, 0, 0.1), sample(500, 0, 0.1)],
        "gateway": [sample(120, 0.1, 0.1), sample(12, 0.1, 0.1), sample(12, 0.1, 0.1)],
        "vllm-router x": [sample(100, 0.1, 0.1), sample(10, 0.1, 0.1), sample(10, 0.1, 0.1)],
    }
    [requests] = [bar for bar in judge(samples) if bar.name.startswith("requests")]
    assert (requests.reached.least, requests.reached.most) == pytest.approx((1.2, 1.2))
