"""A model that grows and shrinks: a ramp up and down over simulated engines, 1 to 6 and back to 1.

`python -m loadtests.scaling` starts a gateway with one model, sends it requests at random times
(Poisson), more and more of them and then less and less, and reads `serve status` all along.
"""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml
from rich.console import Console
from rich.table import Table

from deployments.local import processes
from loadtests.launch import MODEL
from loadtests.open_loop import Client, Outcome, Sender, answered, quantile
from loadtests.targets import LocalGateway, local_gateway, serve_config

MOST = 6
SLOTS = 8
STEP_S = 0.05
TARGET_UTILIZATION = 0.7
SCALE_DOWN_DELAY_S = 10.0
PEAK_RATE = 9.0
"""Requests a second: 3.5 seconds each, in eight slots a replica, of which 0.7 should be taken."""
LEAST_RATE = 0.5
UP_S, TOP_S, DOWN_S, REST_S = 100.0, 20.0, 200.0, 60.0
PIECE_S = 5.0
"""For as long the rate stays as it is."""
LOOK_S = 5.0
"""Between one look at `serve status` and the next."""
ROW_S = 20.0


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What `serve status` said of the engines."""

    at_s: float
    status: str
    states: dict[str, int]
    """Replicas by their states."""

    @property
    def running(self) -> int:
        """Replicas that can work."""
        return self.states.get("RUNNING", 0)

    @property
    def starting(self) -> int:
        """Replicas that are still to come."""
        return self.states.get("STARTING", 0)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A ramp and what came of it; all times are seconds since its beginning."""

    looks: list[Look]
    outcomes: list[Outcome]

    @property
    def most(self) -> int:
        """The most replicas that ran at a time."""
        return max(look.running for look in self.looks)

    @property
    def record(self) -> "Record":
        """What is kept of it."""
        kept = [(round(o.sent_s, 2), o.status, round(o.ttft_s, 3), o.flaw) for o in self.outcomes]
        return Record(looks=self.looks, requests=kept)

    @property
    def turns(self) -> int:
        """How often the number of running replicas began to fall, or to rise again."""
        counts = [look.running for look in self.looks]
        steps = [b - a for a, b in itertools.pairwise(counts) if a != b]
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What of a run is kept."""

    looks: list[Look]
    requests: list[tuple[float, int, float, str]]
    """When each was sent, the status of its answer, its time to first token, what was wrong."""


def rate(at_s: float) -> float:
    """Requests a second at a time."""
    if at_s < UP_S:
        share = at_s / UP_S
    elif at_s < UP_S + TOP_S:
        share = 1.0
    else:
        share = max(0.0, 1 - (at_s - UP_S - TOP_S) / DOWN_S)
    return LEAST_RATE + share * (PEAK_RATE - LEAST_RATE)


async def ramp(gateway: LocalGateway, port: int, seed: int) -> Run:
    """The whole load, with looks at `serve status` beside it."""
    start_s = time.monotonic()
    looks: list[Look] = []
    looking = asyncio.create_task(_look_on(gateway, start_s, looks))
    async with Sender.open(Client(name="ramp"), port, seed) as sender:
        pieces = []
        while (at_s := time.monotonic() - start_s) < UP_S + TOP_S + DOWN_S:
            pieces.append(asyncio.create_task(sender.at_random(rate(at_s), PIECE_S)))
            await asyncio.sleep(PIECE_S)
        outcomes = [outcome for piece in pieces for outcome in await piece]
    await asyncio.sleep(start_s + UP_S + TOP_S + DOWN_S + REST_S - time.monotonic())
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking  # what kept it from looking is raised here
    since = [msgspec.structs.replace(o, sent_s=o.sent_s - start_s) for o in outcomes]
    return Run(looks=looks, outcomes=sorted(since, key=lambda o: o.sent_s))


async def _look_on(gateway: LocalGateway, start_s: float, looks: list[Look]) -> None:
    while True:
        at_s = time.monotonic() - start_s
        status = await asyncio.to_thread(serve_status, gateway.environment)
        engine = status["applications"][MODEL]["deployments"]["Engine"]
        looks.append(Look(at_s=at_s, status=engine["status"], states=engine["replica_states"]))
        await asyncio.sleep(max(0.0, start_s + at_s + LOOK_S - time.monotonic()))


def serve_status(environment: Mapping[str, str]) -> dict[str, Any]:
    """What `serve status` prints."""
    command = [str(Path(sys.executable).with_name("serve")), "status"]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    status: dict[str, Any] = yaml.safe_load(done.stdout)
    return status


def table(run: Run) -> Table:
    """A row for every so many seconds."""
    found = Table(title="a ramp up and down")
    for heading in (
        "from, s",
        "requests/s",
        "answered",
        "rejected",
        "failed",
        "TTFT p50, s",
        "p90",
        "replicas",
    ):
        found.add_column(heading, justify="right")
    found.add_column("serve status")
    end_s = UP_S + TOP_S + DOWN_S + REST_S
    for row in range(int(end_s // ROW_S)):
        begin_s = row * ROW_S
        sent = [o for o in run.outcomes if begin_s <= o.sent_s < begin_s + ROW_S]
        looks = [look for look in run.looks if begin_s <= look.at_s < begin_s + ROW_S]
        found.add_row(f"{begin_s:.0f}", *_cells(sent), *_status(looks))
    return found


def rejected(outcomes: Iterable[Outcome]) -> Sequence[Outcome]:
    """Those that were turned away in order."""
    return [o for o in outcomes if o.status == 429 and not o.flaw]


def failed(outcomes: Iterable[Outcome]) -> Sequence[Outcome]:
    """All others that were not answered in full."""
    return [o for o in outcomes if o.flaw]


def _cells(sent: Sequence[Outcome]) -> tuple[str, ...]:
    good = answered(sent)
    ttfts_s = [outcome.ttft_s for outcome in good]
    return (
        f"{len(sent) / ROW_S:.1f}",
        f"{len(good)}",
        f"{len(rejected(sent))}",
        f"{len(failed(sent))}",
        f"{quantile(ttfts_s, 0.5):.2f}" if good else "",
        f"{quantile(ttfts_s, 0.9):.2f}" if good else "",
    )


def _status(looks: Sequence[Look]) -> tuple[str, str]:
    counts = sorted({look.running for look in looks})
    span = f"{counts[0]}-{counts[-1]}" if len(counts) > 1 else "".join(map(str, counts))
    return span, ", ".join(dict.fromkeys(look.status for look in looks))


def draw(path: Path, run: Run) -> None:
    """Write a picture of the load and the replicas; its format is that of the path's suffix."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    figure = Figure(figsize=(11, 6), layout="constrained")
    load, replicas, waits = figure.subplots(3, 1, sharex=True)
    times = [ROW_S / 4 * step for step in range(int((UP_S + TOP_S + DOWN_S) / (ROW_S / 4)) + 1)]
    load.plot(times, [rate(at_s) for at_s in times], color="#4878a8")
    load.set_ylabel("requests/s wanted")
    looks_s = [look.at_s for look in run.looks]
    replicas.step(looks_s, [look.running for look in run.looks], where="post", color="#2e7d4f")
    replicas.step(
        looks_s,
        [look.running + look.starting for look in run.looks],
        where="post",
        color="#2e7d4f",
        linestyle=":",
    )
    replicas.set_ylabel("replicas\n(dotted: starting)")
    replicas.set_ylim(0, MOST + 1)
    good = answered(run.outcomes)
    waits.plot([o.sent_s for o in good], [o.ttft_s for o in good], ".", ms=3, color="#4878a8")
    for outcomes, marker in ((rejected(run.outcomes), "x"), (failed(run.outcomes), "v")):
        times_s, top = [o.sent_s for o in outcomes], [1.06] * len(outcomes)
        place = waits.get_xaxis_transform()  # on top: they have no time to first token
        waits.plot(times_s, top, marker, transform=place, ms=4, color="#b03a2e", clip_on=False)
    waits.set_ylim(bottom=0)
    waits.set_ylabel("time to first\ntoken, s (on top:\nx rejected, v failed)")
    waits.set_xlabel("seconds")
    for axes in (load, replicas, waits):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)


def main(
    seed: int = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write it all.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Where to write a picture.")] = None,
) -> None:
    """Send a ramp to a gateway of this machine's own, and watch its model grow and shrink."""
    port = processes.free_port()
    entry = {
        "name": MODEL,
        "engine": "sim",
        "autoscaling": {
            "min": 1,
            "max": MOST,
            "target_utilization": TARGET_UTILIZATION,
            "scale_down_delay_s": SCALE_DOWN_DELAY_S,
        },
        "simulation": {"max_sequences": SLOTS, "step_s": STEP_S},
    }
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        config = Path(folder, "scaling.yaml")
        config.write_text(yaml.safe_dump(serve_config(port, entry)))
        with local_gateway(config, port) as gateway:
            run = asyncio.run(ramp(gateway, port, seed))
    good = answered(run.outcomes)
    console = Console(width=120)
    console.print(table(run))
    console.print(
        f"{run.most} replicas at most, {run.looks[-1].running} in the end, changes of direction: "
        f"{run.turns}; {len(good)} of {len(run.outcomes)} requests answered"
    )
    for flaw, count in Counter(o.flaw for o in failed(run.outcomes)).most_common():
        console.print(f"failed {count} times: {flaw}", markup=False, soft_wrap=True)
    if json_file:
        json_file.write_bytes(msgspec.json.encode(run.record))
    if plot:
        draw(plot, run)
    raise typer.Exit(1 if failed(run.outcomes) or not good else 0)


if __name__ == "__main__":
    typer.run(main)
