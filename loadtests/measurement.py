"""One measurement of one target, and what a row of measurements comes to."""

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

import msgspec
import psutil

from loadtests.stream_client import Job, Result
from loadtests.targets import HOST, MODEL, Target

SINGLE_REQUESTS = 400
"""Requests of the one client whose times to first token are taken."""

CLIENT_TIMEOUT_S = 120


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How hard targets are pressed."""

    clients: int = 16
    chunks: int = 64
    seconds: float = 3.0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one target did in one round."""

    requests_per_s: float
    chunks_per_s: float
    """Server-sent events: those with a token, and the few around them."""
    cpu_s_per_1000: float
    """CPU seconds of the processes on the path, per 1,000 requests."""
    beside_cpus: float
    """CPUs kept busy by the processes beside the path, meanwhile."""
    ttft_p50_ms: float
    """One client, answers of one token."""
    ttft_p99_ms: float
    """The same."""
    burst_ttft_p50_ms: float
    """One client, whole streams: the tokens after the first come with it and want the CPU too."""


class Spread(msgspec.Struct, frozen=True):
    """A figure over all rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def over(cls, values: Iterable[float]) -> "Spread":
        """The spread of at least one value."""
        every = list(values)
        return cls(statistics.median(every), min(every), max(every))


def measure(target: Target, load: Load) -> Sample:
    """Press the target with many clients, then ask it with one."""
    before = _cpu_s(target.path_processes()), _cpu_s(target.other_processes())
    pressed = _run_client(target, load, clients=load.clients, max_requests=1_000_000)
    path_s = _cpu_s(target.path_processes()) - before[0]
    beside_s = _cpu_s(target.other_processes()) - before[1]
    first = Load(chunks=1, seconds=load.seconds)
    alone_ms = _ttft_ms(_run_client(target, first, clients=1, max_requests=SINGLE_REQUESTS))
    burst_ms = _ttft_ms(_run_client(target, load, clients=1, max_requests=SINGLE_REQUESTS))
    return Sample(
        requests_per_s=pressed.requests / pressed.elapsed_s,
        chunks_per_s=pressed.events / pressed.elapsed_s,
        cpu_s_per_1000=1000 * path_s / pressed.requests,
        beside_cpus=beside_s / pressed.elapsed_s,
        ttft_p50_ms=statistics.median(alone_ms),
        ttft_p99_ms=alone_ms[int(0.99 * (len(alone_ms) - 1))],
        burst_ttft_p50_ms=statistics.median(burst_ms),
    )


def spread(
    samples: Sequence[Sample], others: Sequence[Sample], compare: Callable[[Sample, Sample], float]
) -> Spread:
    """Compare two targets round by round: what disturbs a round then disturbs both sides of it."""
    return Spread.over(
        compare(sample, other) for sample, other in zip(samples, others, strict=True)
    )


def _run_client(target: Target, load: Load, *, clients: int, max_requests: int) -> Result:
    job = Job(
        model=MODEL,
        clients=clients,
        chunks=load.chunks,
        max_s=load.seconds,
        max_requests=max_requests,
    )
    # In a process of its own: its CPU time is nobody's, and this one's garbage not its trouble.
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.stream_client", HOST, str(target.port)],
        input=msgspec.json.encode(job),
        stdout=subprocess.PIPE,
        check=True,
        timeout=CLIENT_TIMEOUT_S,
    )
    return msgspec.json.decode(done.stdout, type=Result)


def _ttft_ms(result: Result) -> list[float]:
    return sorted(1000 * ttft_s for ttft_s in result.ttft_s)


def _cpu_s(running: Iterable[psutil.Process]) -> float:
    times = [process.cpu_times() for process in running]
    return sum(time.user + time.system for time in times)
