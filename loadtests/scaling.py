"""Autoscaling under a ramp up and down: simulated engines, from 1 to 6 replicas and back to 1.

`python -m loadtests.scaling` starts a gateway with one model, sends it requests at random times
(Poisson), more and more of them and then fewer and fewer, and polls `serve status` meanwhile.
"""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml
from rich.console import Console
from rich.table import Table

from deployments.local import processes
from loadtests.launch import MODEL
from loadtests.loadgen.outcome import RequestOutcome, Status, answered, with_status
from loadtests.loadgen.summary import Summary
from loadtests.sender import Identity, Sender
from loadtests.targets import LocalGateway, local_gateway, serve_config

MAX_REPLICAS = 6
SLOTS = 8
STEP_S = 0.05
TARGET_UTILIZATION = 0.7
SCALE_DOWN_DELAY_S = 10.0
PEAK_RATE = 9.0
"""Requests a second: 3.5 seconds each, in eight slots a replica, of which 0.7 should be taken."""
BASE_RATE = 0.5
UP_S, TOP_S, DOWN_S, IDLE_S = 100.0, 20.0, 200.0, 60.0
STEP_LENGTH_S = 5.0
"""Time for which the rate is constant."""
POLL_S = 5.0
"""Time between two reads of `serve status`."""
ROW_S = 20.0


class ReplicaStates(msgspec.Struct, frozen=True, kw_only=True):
    """`serve status` of the engines at a time."""

    at_s: float
    status: str
    states: dict[str, int]
    """Replicas by state."""

    @property
    def running(self) -> int:
        """Replicas that can work."""
        return self.states.get("RUNNING", 0)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its JSON file keeps it; all times are seconds since its start."""

    looks: list[ReplicaStates]
    requests: list[tuple[float, int, float, str]]
    """For each its due time, HTTP status, TTFT, and the reason if it failed."""


class ScalingRun(msgspec.Struct, frozen=True, kw_only=True):
    """A ramp and its outcomes; all times are seconds since its start."""

    looks: list[ReplicaStates]
    outcomes: list[RequestOutcome]

    @property
    def max_running(self) -> int:
        """The most replicas that ran at a time."""
        return max(look.running for look in self.looks)

    @property
    def record(self) -> Record:
        """The parts that are kept as JSON."""
        requests = [
            (round(o.due_s, 2), o.http_status, round(o.ttft_s or 0.0, 3), _failure(o))
            for o in self.outcomes
        ]
        return Record(looks=self.looks, requests=requests)

    @property
    def direction_changes(self) -> int:
        """Number of times that the running replicas started to fall, or to rise again."""
        counts = [look.running for look in self.looks]
        steps = [b - a for a, b in itertools.pairwise(counts) if a != b]
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


def _failure(outcome: RequestOutcome) -> str:
    return outcome.reason if outcome.status is Status.FAILED else ""


def rate(at_s: float) -> float:
    """Requests a second at a time."""
    if at_s < UP_S:
        share = at_s / UP_S
    elif at_s < UP_S + TOP_S:
        share = 1.0
    else:
        share = max(0.0, 1 - (at_s - UP_S - TOP_S) / DOWN_S)
    return BASE_RATE + share * (PEAK_RATE - BASE_RATE)


async def ramp(gateway: LocalGateway, seed: int) -> ScalingRun:
    """Send the whole load and poll `serve status` meanwhile."""
    start_s = time.monotonic()
    load_s = UP_S + TOP_S + DOWN_S
    looks: list[ReplicaStates] = []
    polling = asyncio.create_task(_poll(gateway, start_s, looks))
    async with Sender(Identity(name="ramp"), gateway.port, seed) as sender:
        sending = []
        while (at_s := time.monotonic() - start_s) < load_s:
            sending.append(asyncio.create_task(sender.send_at_random(rate(at_s), STEP_LENGTH_S)))
            await asyncio.sleep(STEP_LENGTH_S)
        outcomes = [outcome for each in sending for outcome in await each]
    await asyncio.sleep(start_s + load_s + IDLE_S - time.monotonic())
    polling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await polling  # raises its error, if it failed
    since = [msgspec.structs.replace(o, due_s=o.due_s - start_s) for o in outcomes]
    return ScalingRun(looks=looks, outcomes=sorted(since, key=lambda o: o.due_s))


async def _poll(gateway: LocalGateway, start_s: float, looks: list[ReplicaStates]) -> None:
    while True:
        at_s = time.monotonic() - start_s
        status = await asyncio.to_thread(serve_status, gateway.environment)
        engine = status["applications"][MODEL]["deployments"]["Engine"]
        looks.append(
            ReplicaStates(at_s=at_s, status=engine["status"], states=engine["replica_states"])
        )
        await asyncio.sleep(max(0.0, start_s + at_s + POLL_S - time.monotonic()))


def serve_status(environment: Mapping[str, str]) -> dict[str, Any]:
    """The output of `serve status`."""
    command = [str(Path(sys.executable).with_name("serve")), "status"]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    status: dict[str, Any] = yaml.safe_load(done.stdout)
    return status


def table(run: ScalingRun) -> Table:
    """A row for every 20 seconds."""
    found = Table(title="a ramp up and down")
    headings = ("from, s", "requests/s", "answered", "rejected", "failed", "TTFT p50, s", "p90")
    for heading in (*headings, "replicas"):
        found.add_column(heading, justify="right")
    found.add_column("serve status")
    for row in range(int(run.looks[-1].at_s // ROW_S) + 1):
        start_s = row * ROW_S
        sent = [o for o in run.outcomes if start_s <= o.due_s < start_s + ROW_S]
        looks = [look for look in run.looks if start_s <= look.at_s < start_s + ROW_S]
        counts = sorted({look.running for look in looks})
        summary = Summary.of(sent)
        ttft_s = summary.ttft_s
        found.add_row(
            f"{start_s:.0f}",
            f"{len(sent) / ROW_S:.1f}",
            *(str(n) for n in (summary.answered, summary.rejected, summary.failed)),
            *((f"{ttft_s.p50:.2f}", f"{ttft_s.p90:.2f}") if ttft_s else ("", "")),
            f"{counts[0]}-{counts[-1]}" if len(counts) > 1 else "".join(map(str, counts)),
            ", ".join(dict.fromkeys(look.status for look in looks)),
        )
    return found


def draw(path: Path, run: ScalingRun) -> None:
    """Write a picture of the load and the replicas; its format is that of the path's suffix."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    figure = Figure(figsize=(11, 6), layout="constrained")
    load, replicas, ttft = figure.subplots(3, 1, sharex=True)
    times = [STEP_LENGTH_S * n for n in range(int((UP_S + TOP_S + DOWN_S) / STEP_LENGTH_S) + 1)]
    load.plot(times, [rate(at_s) for at_s in times], color="#4878a8")
    load.set_ylabel("requests/s wanted")
    polled_s = [look.at_s for look in run.looks]
    running = [look.running for look in run.looks]
    all_states = [look.running + look.states.get("STARTING", 0) for look in run.looks]
    replicas.step(polled_s, running, where="post", color="#2e7d4f")
    replicas.step(polled_s, all_states, where="post", color="#2e7d4f", linestyle=":")
    replicas.set_ylabel("replicas\n(dotted: starting)")
    replicas.set_ylim(0, MAX_REPLICAS + 1)
    good = answered(run.outcomes)
    ttft.plot([o.due_s for o in good], [o.ttft_s or 0 for o in good], ".", ms=3, color="#4878a8")
    for status, marker in ((Status.REJECTED, "x"), (Status.FAILED, "v")):
        times = [o.due_s for o in with_status(run.outcomes, status)]
        top = ttft.get_xaxis_transform()  # on top: they have no time to first token
        ttft.plot(
            times, [1.06] * len(times), marker, transform=top, ms=4, color="#b03a2e", clip_on=False
        )
    ttft.set_ylim(bottom=0)
    ttft.set_ylabel("time to first\ntoken, s (on top:\nx rejected, v failed)")
    ttft.set_xlabel("seconds")
    for axes in (load, replicas, ttft):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)


def main(
    seed: int = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write it all.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Where to write a picture.")] = None,
) -> None:
    """Send a ramp to a gateway of this machine's own, and watch its model grow and shrink."""
    entry = {
        "name": MODEL,
        "engine": "sim",
        "autoscaling": {
            "min": 1,
            "max": MAX_REPLICAS,
            "target_utilization": TARGET_UTILIZATION,
            "scale_down_delay_s": SCALE_DOWN_DELAY_S,
        },
        "simulation": {"max_sequences": SLOTS, "step_s": STEP_S},
    }
    with local_gateway(serve_config(processes.free_port(), entry)) as gateway:
        run = asyncio.run(ramp(gateway, seed))
    summary = Summary.of(run.outcomes)
    console = Console(width=120)
    console.print(table(run))
    console.print(
        f"at most {run.max_running} replicas, {run.looks[-1].running} at the end, changes of "
        f"direction: {run.direction_changes}; "
        f"{summary.answered} of {summary.requests} requests answered"
    )
    for reason, count in summary.failures.items():
        console.print(f"failed {count} times: {reason}", markup=False, soft_wrap=True)
    if json_file:
        json_file.write_bytes(msgspec.json.encode(run.record))
    if plot:
        draw(plot, run)
    raise typer.Exit(1 if summary.failed or not summary.answered else 0)


if __name__ == "__main__":
    typer.run(main)
