"""One measurement of one target, and what a row of measurements comes to."""

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

import msgspec
import psutil

from loadtests.launch import Unavailable
from loadtests.stream_client import Job, Result
from loadtests.targets import HOST, MODEL, Processes, Target

SINGLE_REQUESTS = 400
"""Requests of the one client whose times to first token are taken, as far as there is time."""

CLIENT_TIMEOUT_S = 60


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How hard targets are pressed."""

    clients: int = 16
    chunks: int = 64
    seconds: float = 2.0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one target did in one round."""

    requests_per_s: float
    chunks_per_s: float
    """Server-sent events: those with a token, and the few around them."""
    cpu_s_per_1000: float
    """CPU seconds of the processes on the path, per 1,000 requests."""
    engine_cpu_s_per_1000: float
    """The same of the engine's processes, which count for nobody."""
    beside_cpus: float
    """CPUs kept busy by the processes beside the path, meanwhile."""
    ttft_p50_ms: float
    """One client, answers of one token."""
    ttft_p99_ms: float
    """The same."""


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


def measure(target: Target, load: Load, engine: Processes) -> Sample:
    """Press the target with many clients, then ask it with one.

    `engine`: the processes of the engine behind it, where it has none of its own.

    Raises:
        Unavailable: it did not answer everything in full.
    """
    groups = (
        target.path_processes,
        target.other_processes,
        target.engine_processes if target.engine_processes() else engine,
    )
    before_s = [_cpu_s(group()) for group in groups]
    pressed = _run_client(target, load, clients=load.clients, max_requests=1_000_000)
    path_s, beside_s, engine_s = (
        _cpu_s(group()) - spent_s for group, spent_s in zip(groups, before_s, strict=True)
    )
    first = Load(chunks=1, seconds=load.seconds)
    alone_ms = _ttft_ms(_run_client(target, first, clients=1, max_requests=SINGLE_REQUESTS))
    return Sample(
        requests_per_s=pressed.requests / pressed.elapsed_s,
        chunks_per_s=pressed.events / pressed.elapsed_s,
        cpu_s_per_1000=1000 * path_s / pressed.requests,
        engine_cpu_s_per_1000=1000 * engine_s / pressed.requests,
        beside_cpus=beside_s / pressed.elapsed_s,
        ttft_p50_ms=statistics.median(alone_ms),
        ttft_p99_ms=alone_ms[int(0.99 * (len(alone_ms) - 1))],
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
    try:
        done = subprocess.run(
            [sys.executable, "-m", "loadtests.stream_client", HOST, str(target.port)],
            input=msgspec.json.encode(job),
            capture_output=True,
            check=False,
            timeout=CLIENT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"its answers took more than {CLIENT_TIMEOUT_S} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unavailable(said[-1] if said else f"the client ended with {done.returncode}")
    return msgspec.json.decode(done.stdout, type=Result)


def _ttft_ms(result: Result) -> list[float]:
    return sorted(1000 * ttft_s for ttft_s in result.ttft_s)


def _cpu_s(running: Iterable[psutil.Process]) -> float:
    times = [process.cpu_times() for process in running]
    return sum(time.user + time.system for time in times)
