"""The load generator of the comparison of the data path, against the engine it is used with."""

import asyncio
from collections.abc import Iterator

import pytest

from loadtests import targets
from loadtests.launch import HOST, MODEL, Unavailable
from loadtests.stream_client import BrokenAnswer, Job, run
from loadtests.targets import Target


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


def test_the_client_waits_longer_than_it_sends() -> None:
    """However long that is."""
    assert job(max_s=300).timeout_s > 300


def test_the_client_counts_its_own_cpu_time(engine: Target) -> None:
    """As much as it has sent and read for."""
    few, many = (asyncio.run(run(HOST, engine.port, job(max_requests=n))) for n in (1, 500))
    assert 0 < few.cpu_s < many.cpu_s


def test_an_error_is_no_answer(engine: Target) -> None:
    """A refusal is not counted as a very fast request."""
    with pytest.raises(BrokenAnswer, match="404"):
        asyncio.run(run(HOST, engine.port, job(model="another")))


def test_load_stays_on_this_machine() -> None:
    """A gateway elsewhere is not measured."""
    with pytest.raises(Unavailable), targets.gateway("http://192.0.2.1:8000"):
        pass
