"""Where requests go, in real time and over HTTP: this gateway's policies beside other routers.

Every contender stands in front of eight simulated engines and gets the same requests in turns,
round after round, so that whatever else happens on the machine happens to all. What the figures
mean is in loadtests/README.md.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from gateway.errors import ConfigError
from gateway.simulation.workloads import GENERATORS
from loadtests.comparison.keeping import keep, replace
from loadtests.comparison.machine import Machine
from loadtests.comparison.naming import named
from loadtests.comparison.options import JsonFile, Plot
from loadtests.comparison.routing.fleet import PEERS, POLICIES, Fleet
from loadtests.comparison.routing.match import Match, turn_s
from loadtests.comparison.routing.report import Report
from loadtests.comparison.routing.stretches import Stretches, end_s
from loadtests.comparison.routing.turn import play
from loadtests.launch import end_in_order

WIDTH = 190
"""Columns of the tables, also where the terminal has fewer."""


def main(  # noqa: PLR0913 - each is an option of the command
    *,
    workloads: Annotated[
        str, typer.Option(help=f"Generated ones, with commas: {', '.join(GENERATORS)}.")
    ] = "tenants,agents,hot,none",
    trace: Annotated[
        Path | None, typer.Option(help="A file in Mooncake's format, to be sent as well.")
    ] = None,
    trace_speed: Annotated[float, typer.Option(min=0.1, help="How many times as fast.")] = 2.0,
    contenders: Annotated[str, typer.Option(help="By name, with commas.")] = ",".join(
        (*POLICIES, *PEERS)
    ),
    rounds: Annotated[int, typer.Option(min=1, max=20)] = 5,
    seconds: Annotated[
        float, typer.Option(min=2, max=60, help="Of each turn that count; a third more leads up.")
    ] = 6,
    json_file: JsonFile = None,
    plot: Plot = None,
) -> None:
    """Compare where routers send requests, over HTTP and in real time."""
    end_in_order()
    progress, machine = Console(stderr=True), Machine.here()
    try:
        names = named(contenders, (*POLICIES, *PEERS), "--contenders")
        until_s = end_s(rounds, turn_s(seconds))
        stretches = [
            Stretches.generated(name, until_s)
            for name in named(workloads, tuple(GENERATORS), "--workloads")
        ]
        if trace:
            stretches.append(Stretches.of_trace(trace, trace_speed, until_s))
    except ConfigError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(1) from None
    untried = {} if trace else {"trace": "no --trace was given"}
    with ExitStack() as stack:
        fleet = Fleet(stack)
        progress.print(f"starting {', '.join(names)}", style="dim")
        fleet.start(names)
        match = Match(fleet.contenders, stretches, seconds, play, progress)
        report = Report(
            machine=machine,
            seconds=seconds,
            versions={contender.name: contender.version for contender in fleet.contenders},
            missing=fleet.missing | untried,
            turns={},
        )
        for number in range(rounds):
            match.round(number)
            missing = fleet.missing | untried | match.dropped
            report = msgspec.structs.replace(report, missing=missing, turns=match.turns)
            _keep(report, json_file, plot)
    report.print(Console(width=WIDTH))


def _keep(report: Report, json_file: Path | None, plot: Path | None) -> None:
    """Write what there is so far: a run may be ended before it is over."""
    if json_file:
        keep(json_file, report)
    if plot and report.turns:
        from loadtests.comparison.routing.plot import draw  # noqa: PLC0415 - matplotlib is optional

        replace(plot, lambda new: draw(new, report))
