"""One turn of the routing comparison: one contender, one stretch of a workload."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.simulation.trace import TraceRequest
from loadtests.comparison.routing import client
from loadtests.comparison.routing.client import Ask, Job, Outcome, Play
from loadtests.comparison.routing.fleet import PATIENCE_S, Contender
from loadtests.comparison.routing.scores import Score
from loadtests.comparison.routing.stretches import renamed
from loadtests.launch import HOST
from loadtests.texts import text

GRACE_S = 60.0
"""More than writing the requests takes."""


MOST_LATE_S = 0.01
"""A client that sends later than that is the one that is measured."""


class BadTurn(Exception):
    """There is nothing to score; the message says why."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it, and whether the machine was up to it."""

    score: Score
    late_s: float
    """The 99th percentile of how late the client sent."""
    client_cpus: float
    busy_share: float
    """Of all the machine's CPUs while requests were sent, taken by whatever ran."""
    doubt: str
    """Why not to trust it; empty where there is no reason."""
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
        BadTurn: there is nothing to score.
    """
    fresh = renamed(requests, xxh3_64_intdigest(name.encode()))
    asks = [
        Ask(request.arrived_s, text(request, f"{number} of {name}"), request.output_tokens)
        for number, request in enumerate(fresh)
    ]
    if not any(ask.at_s >= lead_s for ask in asks):
        raise BadTurn("no request of the workload falls into it")
    job = Job(model=contender.model, asks=asks, patience_s=PATIENCE_S)
    return turn(_run_client(contender.port, job), lead_s)


def turn(played: Play, lead_s: float) -> Turn:
    """What a play comes to, its first `lead_s` excepted.

    Raises:
        BadTurn: nobody answered, not even to turn a request away.
    """
    counted = [outcome for outcome in played.outcomes if outcome.at_s >= lead_s]
    flaws = _kinds(played.outcomes)[:5]
    if not any(outcome.status for outcome in counted):
        raise BadTurn(f"none of {len(counted)} requests was answered: {', '.join(flaws)}")
    is_late = played.late_s > MOST_LATE_S
    return Turn(
        score=Score.of(counted, PATIENCE_S),
        late_s=played.late_s,
        client_cpus=played.cpus,
        busy_share=played.busy_share,
        doubt=f"its client sent {1000 * played.late_s:.0f} ms late" if is_late else "",
        flaws=flaws,
    )


def _kinds(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(f"{o.status}: {o.flaw}" for o in outcomes if o.flaw))


def _run_client(port: int, job: Job) -> Play:
    timeout_s = job.asks[-1].at_s + job.patience_s + GRACE_S
    # In a process of its own: its CPU time is nobody's, and this one's garbage not its trouble.
    # Into a file: of what it writes into a pipe on a busy machine the end may be missing.
    with tempfile.TemporaryFile() as told:
        try:
            done = subprocess.run(
                [sys.executable, "-m", client.__name__, HOST, str(port)],
                input=msgspec.msgpack.encode(job),
                stdout=told,
                stderr=subprocess.PIPE,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise BadTurn(f"its client took more than {timeout_s:.0f} s") from None
        told.seek(0)
        found = told.read()
    try:
        return msgspec.msgpack.decode(found, type=Play)
    except msgspec.DecodeError as error:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        ending = f"its client ended with {done.returncode} after {len(found):,} bytes: {error}"
        raise BadTurn("; ".join([ending, *said])) from None
