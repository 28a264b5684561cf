"""Cost of projects on the data path: a router with authentication, limits and ledger, and without.

Both routers run in front of an instant engine of their own. They are measured in turn, in pairs,
and every second pair the other way round: what else happens on the machine happens to both.
Accounts, which runs beside and carries no requests, is counted apart.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import psutil
import typer
from rich.console import Console

from gateway.identity.api_key import NewKey
from gateway.simulation.results import percentile
from loadtests import launch
from loadtests.comparison.shared import JsonFile, Machine, figures_table, spread_cell, write_json
from loadtests.launch import HOST, MODEL, Unavailable, exit_on_signals
from loadtests.loadgen.summary import Spread
from loadtests.loadgen.worker import SaturationJob, SaturationResult, WorkerFailed, saturate
from loadtests.router_with_projects import READY

KEY = "sk-load"
MAX_ADDED_CPU_US = 10.0
MAX_ADDED_TTFT_MS = 0.05
SINGLE_REQUESTS = 1_000
UNLIMITED = 10_000_000
WARM_UP_S = 3.0


class PathCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a request costs in one router, in one round."""

    cpu_us: float
    """CPU time of the router for a request."""
    ttft_p50_ms: float
    requests_per_s: float


class CostReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one run has found."""

    machine: Machine
    without: list[PathCost]
    with_projects: list[PathCost]
    accounts_cpu_us: float
    """CPU time of Accounts for a request, beside the path."""
    added_cpu_us: Spread
    added_ttft_ms: Spread

    @property
    def is_good(self) -> bool:
        """Whether both medians are within their goals."""
        is_cheap = self.added_cpu_us.median <= MAX_ADDED_CPU_US
        return is_cheap and self.added_ttft_ms.median <= MAX_ADDED_TTFT_MS

    def print(self, console: Console) -> None:
        """Print all figures."""
        table = figures_table(
            "Router with and without projects",
            ("CPU µs per request", "TTFT p50 ms", "requests/s"),
            f"median of {len(self.without)} rounds, least-most; {self.machine}",
            show_lines=True,
        )
        for name, costs in (("without", self.without), ("with", self.with_projects)):
            table.add_row(
                name,
                spread_cell(Spread.over(each.cpu_us for each in costs), 1),
                spread_cell(Spread.over(each.ttft_p50_ms for each in costs), 3),
                spread_cell(Spread.over(each.requests_per_s for each in costs), 0),
            )
        added = (spread_cell(self.added_cpu_us, 1), spread_cell(self.added_ttft_ms, 3))
        table.add_row("added, in pairs", *added, "")
        console.print(table)
        console.print(
            f"goals: at most {MAX_ADDED_CPU_US:g} µs and {MAX_ADDED_TTFT_MS:g} ms:"
            f" {'met' if self.is_good else 'missed'}."
            f" Accounts takes {self.accounts_cpu_us:.0f} µs a request beside."
        )


@dataclass(frozen=True, slots=True)
class RouterProcess:
    """A router, and the key that it wants."""

    process: psutil.Process
    port: int
    key: str = ""


@contextmanager
def started(*arguments: str) -> Iterator[tuple[psutil.Process, str]]:
    """A process of `loadtests.router_with_projects`, and what it has said when it was ready."""
    command = [sys.executable, "-m", "loadtests.router_with_projects", *arguments]
    with launch.logged(command) as (process, log):
        yield process, launch.await_line(READY, log, process).removeprefix(READY)


def projects_file(folder: Path) -> Path:
    """A projects file with limits of every kind, all of them too high to be reached."""
    project = {
        "name": "load",
        "keys": [{"hash": NewKey(KEY).hash}],
        "rate_limits": [
            {
                "requests_per_minute": 10**9,
                "tokens_per_minute": 10**12,
                "concurrent_requests": 10**6,
            },
            {"model": MODEL, "requests_per_minute": 10**9, "tokens_per_minute": 10**12},
        ],
        "spend_limits": [{"amount": 1e9, "interval": "month"}],
    }
    file = folder / "projects.yaml"
    file.write_text(json.dumps({"projects": [project]}))
    return file


def measure(router: RouterProcess, clients: int, seconds: float, chunks: int) -> PathCost:
    """Measure a router with many clients, and then with one.

    Raises:
        Unavailable: it did not answer everything in full.
    """
    before_s = _cpu_s(router.process)
    many = _saturate(router, clients, seconds, chunks, UNLIMITED)
    spent_s = _cpu_s(router.process) - before_s
    single = _saturate(router, 1, seconds, 1, SINGLE_REQUESTS)
    return PathCost(
        cpu_us=1e6 * spent_s / many.requests,
        ttft_p50_ms=1000 * percentile(sorted(single.ttft_s), 0.5),
        requests_per_s=many.requests / many.elapsed_s,
    )


def _saturate(
    router: RouterProcess, clients: int, seconds: float, chunks: int, requests: int
) -> SaturationResult:
    job = SaturationJob(
        model=MODEL,
        clients=clients,
        chunks=chunks,
        max_s=seconds,
        max_requests=requests,
        api_key=router.key,
    )
    try:
        return saturate(HOST, router.port, job)
    except WorkerFailed as error:
        raise Unavailable(str(error)) from None


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def run(rounds: int, clients: int, seconds: float, chunks: int, progress: Console) -> CostReport:
    """Start everything, and measure `rounds` pairs.

    Raises:
        Unavailable: something does not start, or does not answer.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="projects-"))
        _, plain_engine = stack.enter_context(started("engine"))
        _, engine = stack.enter_context(started("engine"))
        accounts, accounts_port = stack.enter_context(started("accounts", folder, engine))
        file = str(projects_file(Path(folder)))
        process, port = stack.enter_context(started("router", plain_engine))
        without = RouterProcess(process, int(port))
        process, port = stack.enter_context(started("router", engine, file, accounts_port))
        with_projects = RouterProcess(process, int(port), KEY)
        pair = (without, with_projects)
        for router in pair:
            measure(router, clients, WARM_UP_S, chunks)
        costs: tuple[list[PathCost], list[PathCost]] = ([], [])
        before_s, requests = _cpu_s(accounts), 0.0
        for number in range(rounds):
            for index in (0, 1) if number % 2 else (1, 0):
                cost = measure(pair[index], clients, seconds, chunks)
                costs[index].append(cost)
                progress.print(f"round {number + 1}: {cost}", style="dim", highlight=False)
            requests += costs[1][-1].requests_per_s * seconds + SINGLE_REQUESTS
        accounts_s = _cpu_s(accounts) - before_s
    pairs = list(zip(*costs, strict=True))
    return CostReport(
        machine=Machine.here(),
        without=costs[0],
        with_projects=costs[1],
        accounts_cpu_us=1e6 * accounts_s / requests,
        added_cpu_us=Spread.over(b.cpu_us - a.cpu_us for a, b in pairs),
        added_ttft_ms=Spread.over(b.ttft_p50_ms - a.ttft_p50_ms for a, b in pairs),
    )


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of measurements.")] = 10,
    clients: Annotated[int, typer.Option(min=1)] = 16,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds of load for each.")] = 4,
    chunks: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 8,
    json_file: JsonFile = None,
) -> None:
    """Measure what authentication, limits and the ledger add to a request; status 1 if too much."""
    exit_on_signals()
    try:
        report = run(rounds, clients, seconds, chunks, Console(stderr=True))
    except Unavailable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    report.print(Console(width=120))
    if json_file:
        write_json(json_file, report)
    raise typer.Exit(0 if report.is_good else 1)
