"""One turn of the routing comparison: one contender, one stretch of a workload."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence

import msgspec
import psutil
from xxhash import xxh3_64_intdigest

from gateway.simulation.trace import TraceRequest
from loadtests.comparison.routing_client import Ask, Job, Outcome, Play
from loadtests.comparison.routing_fleet import PATIENCE_S, Contender
from loadtests.comparison.routing_scores import Score
from loadtests.comparison.routing_stretches import renamed
from loadtests.launch import HOST
from loadtests.texts import text

GRACE_S = 60.0
"""More than writing the requests takes."""


class ClientCut(Exception):
    """The client ended without having told all that it saw."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it, and whether the machine was up to it."""

    score: Score
    late_s: float
    """The 99th percentile of how late the client sent."""
    client_cpus: float
    busy_share: float
    """Of all the machine's CPUs, taken by whatever ran, other programs included."""
    flaws: list[str]
    """What was wrong with requests that failed: the first few kinds."""

    def __str__(self) -> str:
        """What to say of it while others are still to come."""
        score = self.score
        return (
            f"{score.e2e_mean_s:.2f} s end to end, {score.goodput:.0%} in time, "
            f"{score.hit_rate:.0%} cached; CPUs {self.busy_share:.0%} busy, "
            f"client {1000 * self.late_s:.0f} ms late"
        )


def play(contender: Contender, requests: Sequence[TraceRequest], name: str, lead_s: float) -> Turn:
    """Send a stretch; the requests of its first `lead_s` only fill caches and batches.

    `name`: nothing of what is sent is in a turn of another name.

    Raises:
        ClientCut: there is nothing to score.
    """
    fresh = renamed(requests, xxh3_64_intdigest(name.encode()))
    asks = [
        Ask(request.arrived_s, text(request, f"{number} of {name}"), request.output_tokens)
        for number, request in enumerate(fresh)
    ]
    psutil.cpu_percent()
    played = _run_client(contender, Job(model=contender.model, asks=asks, patience_s=PATIENCE_S))
    busy_share = psutil.cpu_percent() / 100
    counted = [outcome for outcome in played.outcomes if outcome.at_s >= lead_s]
    return Turn(
        score=Score.of(counted, PATIENCE_S),
        late_s=played.late_s,
        client_cpus=played.cpus,
        busy_share=busy_share,
        flaws=_kinds(played.outcomes)[:5],
    )


def _kinds(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(f"{o.status}: {o.flaw}" for o in outcomes if o.flaw))


def _run_client(contender: Contender, job: Job) -> Play:
    # In a process of its own: its CPU time is nobody's, and this one's garbage not its trouble.
    # Into a file: of what it writes into a pipe on a busy machine the end may be missing.
    with tempfile.TemporaryFile() as told:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "loadtests.comparison.routing_client",
                HOST,
                str(contender.port),
            ],
            input=msgspec.msgpack.encode(job),
            stdout=told,
            check=True,
            timeout=job.asks[-1].at_s + job.patience_s + GRACE_S,
        )
        told.seek(0)
        found = told.read()
    try:
        return msgspec.msgpack.decode(found, type=Play)
    except msgspec.DecodeError as error:
        raise ClientCut(f"{error}, after {len(found):,} bytes") from None
