"""Drills of high availability: parts of a cluster are lost, or restarted, while clients ask.

    python -m loadtests.drills --json drills.json

starts Redis, a head, three workers and a load balancer as docs/production.md has them, each in a
network namespace of its own (so it needs root, and `redis-server`), with simulated engines whose
answers are known. For each drill it prints what became of requests, and when everything was back.
It ends with status 1 if an answer was lost, or cut in a drill that was planned.
"""

import asyncio
import random
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from loadtests.checked_load import CheckedLoad, Counts, LoadSource
from loadtests.drills.cluster import MODEL, DrillCluster, drill_cluster
from loadtests.drills.events import DRILLS, Drill, Recovery
from loadtests.launch import exit_on_signals

CLIENTS = 12
BEFORE_S, AFTER_S = 5.0, 5.0
"""Of load before the fault, and after all is back."""


class DrillResult(msgspec.Struct, kw_only=True):
    """Result of a drill; times are seconds."""

    name: str
    what: str
    requests: Counts
    longest_silence_s: float
    """Longest time without the end of any answer."""
    slowest_s: float
    """Longest time that one request took."""
    recovered_s: dict[str, float]
    """When what was lost was back, since it happened."""
    is_planned: bool

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost but the connections through what was killed."""
        counts = self.requests
        is_whole = not counts.lost and not (self.is_planned and (counts.cut or counts.errors))
        return is_whole and all(map(_is_finite, self.recovered_s.values()))


def _is_finite(time_s: float) -> bool:
    return time_s != float("inf")


async def run(cluster: DrillCluster, drill: Drill, seed: int) -> DrillResult:
    """Run a drill under load."""
    load = CheckedLoad(
        cluster.url,
        MODEL,
        random.Random(seed),  # noqa: S311 - a seed makes it repeatable
        lambda _began_s, _ended_s: not drill.is_planned,
        LoadSource(name=drill.name, keeps_tokens=True),
    )
    is_over = asyncio.Event()
    loading = asyncio.create_task(load.run(CLIENTS, is_over.is_set))
    await asyncio.sleep(BEFORE_S)
    recovery = Recovery()
    try:
        await asyncio.to_thread(drill.run, cluster, recovery)
        await asyncio.sleep(AFTER_S)
    finally:
        is_over.set()
        await loading
    spans = load.counts.times_s.values()
    ends_s = sorted(end_s for _, end_s in spans)
    result = DrillResult(
        name=drill.name,
        what=drill.what,
        requests=load.counts,
        longest_silence_s=max(after - before for before, after in pairwise(ends_s)),
        slowest_s=max(end_s - sent_s for sent_s, end_s in spans),
        recovered_s=recovery.times_s,
        is_planned=drill.is_planned,
    )
    load.counts.times_s, load.counts.completion_tokens = {}, {}
    return result


def _report(results: list[DrillResult]) -> Table:
    table = Table(title="Drills")
    for heading in ("drill", "requests", "resumed or sent again", "cut", "errors", "lost"):
        table.add_column(heading)
    for heading in ("longest silence, s", "slowest request, s", "back after, s"):
        table.add_column(heading)
    for result in results:
        counts = result.requests
        errors = ", ".join(f"{n} x {code}" for code, n in counts.errors.items())
        back = "\n".join(f"{what} {time_s:.1f}" for what, time_s in result.recovered_s.items())
        figures = (counts.sent, counts.retried, counts.cut, errors or 0, counts.lost.total())
        times = (f"{result.longest_silence_s:.1f}", f"{result.slowest_s:.1f}", back)
        table.add_row(result.what, *map(str, figures), *times)
    return table


def main(
    only: Annotated[
        list[str] | None, typer.Option("--drill", help="One of them; several may be given.")
    ] = None,
    seed: int = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write it.")] = None,
) -> None:
    """Drill a cluster on this machine; status 1 if an answer was lost."""
    names = [drill.name for drill in DRILLS]
    if unknown := set(only or ()) - set(names):
        raise typer.BadParameter(f"no drill {', '.join(unknown)}; there are {', '.join(names)}")
    exit_on_signals()
    results: list[DrillResult] = []
    with drill_cluster() as cluster:
        for drill in DRILLS:
            if not only or drill.name in only:
                results.append(asyncio.run(run(cluster, drill, seed)))
                typer.echo(f"{drill.name}: {results[-1].recovered_s}")
                if not results[-1].is_good:
                    typer.echo(cluster.logs)
    Console(width=160).print(_report(results))
    for result in results:
        for reason, count in result.requests.lost.items():
            typer.echo(f"{result.name}: {count} lost: {reason}")
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    raise typer.Exit(0 if all(result.is_good for result in results) else 1)


if __name__ == "__main__":
    typer.run(main)
