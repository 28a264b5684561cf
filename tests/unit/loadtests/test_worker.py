"""The load generator's own process, against a simulated engine."""

import asyncio
from collections.abc import Iterator

import pytest

from deployments.local.processes import free_port
from loadtests import targets
from loadtests.launch import HOST, MODEL
from loadtests.loadgen.outcome import Status
from loadtests.loadgen.worker import (
    SaturationJob,
    ScheduledRequest,
    ScheduleJob,
    WorkerFailed,
    replay,
    run_saturation,
    run_schedule,
    saturate,
)
from loadtests.targets import LoadTarget


@pytest.fixture(scope="module")
def engine() -> Iterator[LoadTarget]:
    """A simulated engine that answers at once."""
    with targets.engine() as started:
        yield started


def saturation(model: str = MODEL, max_s: float = 60, max_requests: int = 5) -> SaturationJob:
    """Two clients that ask for four tokens a stream."""
    return SaturationJob(model=model, clients=2, chunks=4, max_s=max_s, max_requests=max_requests)


def test_saturation_counts_requests_events_and_cpu_time(engine: LoadTarget) -> None:
    """A stream has its tokens and three events around them."""
    few, many = (
        asyncio.run(run_saturation(HOST, engine.port, saturation(max_requests=n))) for n in (5, 500)
    )

    assert (few.requests, few.events, len(few.ttft_s)) == (5, 5 * (4 + 3), 5)
    assert 0 < min(few.ttft_s) < few.elapsed_s
    assert 0 < few.cpu_s < many.cpu_s


def test_saturation_ends_at_its_time(engine: LoadTarget) -> None:
    """However many requests it may send; its bound is later."""
    job = saturation(max_s=0.3, max_requests=10**9)
    result = saturate(HOST, engine.port, job)

    assert result.requests > 0
    assert result.elapsed_s < 10
    assert job.timeout_s > job.max_s


def test_saturation_fails_without_a_whole_stream(engine: LoadTarget) -> None:
    """A refusal is not counted as a very fast request; the reason is passed on."""
    with pytest.raises(WorkerFailed, match="status 404"):
        saturate(HOST, engine.port, saturation(model="another"))


def schedule(*max_tokens: int) -> ScheduleJob:
    """Requests that are due one after the other."""
    requests = [ScheduledRequest(n / 100, f"prompt {n}", m) for n, m in enumerate(max_tokens)]
    return ScheduleJob(model=MODEL, requests=requests, request_timeout_s=30)


def test_a_schedule_gives_outcomes_in_order(engine: LoadTarget) -> None:
    """Due in seconds from its start, with the costs of sending."""
    result = replay(HOST, engine.port, schedule(3, 4))

    assert [o.status for o in result.outcomes] == [Status.ANSWERED] * 2
    assert [o.completion_tokens for o in result.outcomes] == [3, 4]
    assert [o.due_s for o in result.outcomes] == [0.0, 0.01]
    assert 0 < result.late_s < 1
    assert result.cpus > 0
    assert 0 <= result.busy_share <= 1


def test_an_answer_of_another_length_has_failed(engine: LoadTarget) -> None:
    """An engine without room for it cuts the second answer short."""
    result = asyncio.run(run_schedule(HOST, engine.port, schedule(3, 10**6)))

    assert [o.is_answered for o in result.outcomes] == [True, False]
    assert result.outcomes[1].reason


def test_a_schedule_reports_that_nobody_listens() -> None:
    """As failed requests."""
    result = replay(HOST, free_port(), schedule(3))

    assert result.outcomes[0].reason.startswith("ConnectionRefusedError")
