"""Comparison of routing, in real time and over HTTP: this gateway's policies and other routers.

Every contender stands in front of eight simulated engines and gets the same requests in turn,
round after round, so that whatever else happens on the machine happens to all.
loadtests/README.md explains the figures.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from gateway.errors.startup import ConfigError
from gateway.simulation.trace import TraceRequest
from gateway.simulation.workloads import GENERATORS
from loadtests.comparison.routing_contenders import PEERS, POLICIES, Contender, Contenders
from loadtests.comparison.routing_report import RoutingReport, Runs, draw
from loadtests.comparison.routing_run import RoutingRun, run_slice
from loadtests.comparison.shared import (
    JsonFile,
    Machine,
    Plot,
    Rounds,
    parsed_names,
    write_atomically,
    write_json,
)
from loadtests.comparison.trace_slices import SlicedWorkload, end_s
from loadtests.launch import exit_on_signals

TABLE_WIDTH = 190
"""Columns, also where the terminal has fewer."""
LEAD_SHARE = 1 / 3
"""Length of a slice's unscored lead, as a share of its scored part."""

RunSlice = Callable[[Contender, Sequence[TraceRequest], str, float], RoutingRun]
"""`routing_run.run_slice`."""


def main(  # noqa: PLR0913 - each is an option of the command
    *,
    workloads: Annotated[
        str, typer.Option(help=f"Generated workloads, with commas: {', '.join(GENERATORS)}.")
    ] = "tenants,agents,hot,none",
    trace: Annotated[
        Path | None, typer.Option(help="A file in Mooncake's format, to be sent as well.")
    ] = None,
    trace_speed: Annotated[
        float, typer.Option(min=0.1, help="Speed of the trace: 2 is twice as fast.")
    ] = 2.0,
    contenders: Annotated[str, typer.Option(help="Contenders by name, with commas.")] = ",".join(
        (*POLICIES, *PEERS)
    ),
    rounds: Annotated[int, typer.Option(min=1, max=20)] = 5,
    seconds: Annotated[
        float, typer.Option(min=2, max=60, help="Scored in each run; a third more leads up.")
    ] = 6,
    json_file: JsonFile = None,
    plot: Plot = None,
) -> None:
    """Compare where routers send requests, over HTTP and in real time."""
    exit_on_signals()
    progress, machine = Console(stderr=True), Machine.here()
    try:
        names = parsed_names(contenders, (*POLICIES, *PEERS), "--contenders")
        generated = parsed_names(workloads, tuple(GENERATORS), "--workloads")
        until_s = end_s(rounds, slice_s(seconds))
        sliced = [SlicedWorkload.generated(name, until_s) for name in generated]
        if trace:
            sliced.append(SlicedWorkload.of_trace(trace, trace_speed, until_s))
    except ConfigError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(1) from None
    not_run = {} if trace else {"trace": "no --trace was given"}
    with ExitStack() as stack:
        started = Contenders(stack)
        progress.print(f"starting {', '.join(names)}", style="dim")
        started.start(names)
        played = Match(started.running, sliced, seconds, progress)
        report = RoutingReport(
            machine=machine,
            seconds=seconds,
            versions={contender.name: contender.version for contender in started.running},
            missing=started.missing | not_run,
            turns={},
        )
        for number in range(rounds):
            played.play(number)
            missing = started.missing | not_run | played.dropped
            report = msgspec.structs.replace(report, missing=missing, turns=played.runs)
            _write(report, json_file, plot)
    report.print(Console(width=TABLE_WIDTH))


def _write(report: RoutingReport, json_file: Path | None, plot: Path | None) -> None:
    """Write the results so far: the command may be ended early."""
    if json_file:
        write_json(json_file, report)
    if plot and report.turns:
        write_atomically(plot, lambda new: draw(new, report))


def slice_s(seconds: float) -> float:
    """Length of a slice of which `seconds` are scored."""
    return seconds * (1 + LEAD_SHARE)


class Match:
    """Rounds of all contenders on all workloads."""

    def __init__(
        self,
        contenders: Sequence[Contender],
        workloads: Sequence[SlicedWorkload],
        seconds: float,
        progress: Console,
        run_slice: RunSlice = run_slice,
    ) -> None:
        self._workloads = workloads
        self._seconds = seconds
        self._run_slice = run_slice
        by_name = {contender.name: contender for contender in contenders}
        self._rounds: dict[str, Rounds[Contender, RoutingRun]] = {
            each.name: Rounds(by_name, progress, tries=2) for each in workloads
        }

    def play(self, number: int) -> None:
        """Play a round: every workload with every contender that has not been dropped from it."""
        lead_s = LEAD_SHARE * self._seconds
        for workload in self._workloads:
            requests = workload.slice(number, slice_s(self._seconds))

            def measure(
                to: Contender, title: str, requests: Sequence[TraceRequest] = requests
            ) -> RoutingRun:
                return self._run_slice(to, requests, title, lead_s)

            title = f"{workload.name}, round {number + 1}"
            self._rounds[workload.name].play(number, title, measure)

    @property
    def runs(self) -> dict[str, Runs]:
        """Runs by workload and contender, without those that were dropped."""
        found = {
            workload: {n: r for n, r in rounds.results.items() if n not in rounds.dropped}
            for workload, rounds in self._rounds.items()
        }
        return {workload: runs for workload, runs in found.items() if runs}

    @property
    def dropped(self) -> dict[str, str]:
        """Contenders that were dropped from a workload, and why."""
        return {
            f"{name} on {workload}": why
            for workload, rounds in self._rounds.items()
            for name, why in rounds.dropped.items()
        }
