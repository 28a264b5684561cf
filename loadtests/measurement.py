"""One measurement of one target, and what a row of measurements comes to."""

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

import msgspec

from gateway.simulation.scores import percentile
from loadtests.cpu_time import CpuTime, Processes
from loadtests.launch import HOST, MODEL, Unavailable
from loadtests.stream_client import Job, Result
from loadtests.targets import Target

MOST_REQUESTS = 1_000_000
"""More than anybody answers in the time."""
SINGLE_REQUESTS = 400
"""Requests of the one client whose times to first token are taken, as far as there is time."""

CLIENT_START_S = 30
"""More than the client takes to begin, and to tell what it saw, on a busy machine."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How hard targets are pressed."""

    clients: int = 16
    chunks: int = 64
    seconds: float = 2.0
    token_ms: float = 0.0
    """How long an engine takes for a token of each answer; 0: it answers at once."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one target did in one round."""

    requests_per_s: float
    chunks_per_s: float
    """Server-sent events: those with a token, and the few around them."""
    cpu_s_per_1000: float
    """CPU seconds of the processes on the path, per 1,000 requests."""
    engine_cpu_s_per_1000: float
    """The same of the engine's processes, which count for nobody."""
    client_cpu_s_per_1000: float
    """The same of the load generator, which takes its share of the same machine."""
    beside_cpus: float
    """CPUs kept busy by the processes beside the path, meanwhile."""
    ttft_p50_ms: float
    """One client, answers of one token."""
    ttft_p99_ms: float
    """The same."""


class Unsteady(Unavailable):
    """Who is measured is not the same as at first; another try may do."""


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
        Unsteady: some of its processes ended meanwhile.
        Unavailable: it did not answer everything in full.
    """
    path, beside = CpuTime(target.path_processes), CpuTime(target.other_processes)
    own = CpuTime(target.engine_processes if target.engine_processes() else engine)
    pressed = _run_client(target, load, clients=load.clients, max_requests=MOST_REQUESTS)
    path_s, beside_s, engine_s = path.spent_s, beside.spent_s, own.spent_s
    if ended := [*path.ended, *own.ended]:
        raise Unsteady(f"processes {ended} ended meanwhile, and with them the count of CPU time")
    if not pressed.requests:
        raise Unavailable(f"no request was answered within {load.seconds:g} s")
    first = Load(chunks=1, seconds=load.seconds)
    alone_ms = _ttft_ms(_run_client(target, first, clients=1, max_requests=SINGLE_REQUESTS))
    return Sample(
        requests_per_s=pressed.requests / pressed.elapsed_s,
        chunks_per_s=pressed.events / pressed.elapsed_s,
        cpu_s_per_1000=1000 * path_s / pressed.requests,
        engine_cpu_s_per_1000=1000 * engine_s / pressed.requests,
        client_cpu_s_per_1000=1000 * pressed.cpu_s / pressed.requests,
        beside_cpus=beside_s / pressed.elapsed_s,
        ttft_p50_ms=percentile(alone_ms, 0.5),
        ttft_p99_ms=percentile(alone_ms, 0.99),
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
    timeout_s = job.timeout_s + CLIENT_START_S
    # In a process of its own: its CPU time is apart, and this one's garbage not its trouble.
    try:
        done = subprocess.run(
            [sys.executable, "-m", "loadtests.stream_client", HOST, str(target.port)],
            input=msgspec.json.encode(job),
            capture_output=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"its answers took more than {timeout_s:g} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unavailable(said[-1] if said else f"the client ended with {done.returncode}")
    return msgspec.json.decode(done.stdout, type=Result)


def _ttft_ms(result: Result) -> list[float]:
    return sorted(1000 * ttft_s for ttft_s in result.ttft_s)
