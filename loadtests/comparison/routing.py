"""Where requests go, in real time and over HTTP: this gateway's policies beside other routers.

Every contender stands in front of eight simulated engines of its own and gets the same requests in
turns, round after round, so that whatever else happens on the machine happens to all. What the
figures mean is in loadtests/README.md.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from gateway.errors import ConfigError
from gateway.problems import nearest
from gateway.simulation.workloads import GENERATORS
from loadtests.comparison.machine import Machine
from loadtests.comparison.routing_fleet import PEERS, POLICIES, Contender, Fleet
from loadtests.comparison.routing_report import Report
from loadtests.comparison.routing_stretches import Stretches, end_s
from loadtests.comparison.routing_turn import ClientCut, Turn, play
from loadtests.launch import end_in_order

LEAD_SHARE = 1 / 3
"""Of the counted seconds: what leads up to them."""
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
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write all figures.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Where to draw them (.png, .svg).")] = None,
) -> None:
    """Compare where routers send requests, over HTTP and in real time."""
    end_in_order()
    progress = Console(stderr=True)
    turn_s = seconds * (1 + LEAD_SHARE)
    try:
        names = _named(contenders, (*POLICIES, *PEERS), "--contenders")
        until_s = end_s(rounds, turn_s)
        stretches = [
            Stretches.generated(name, until_s)
            for name in _named(workloads, tuple(GENERATORS), "--workloads")
        ]
        if trace:
            stretches.append(Stretches.of_trace(trace, trace_speed, until_s))
    except ConfigError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(1) from None
    with ExitStack() as stack:
        fleet = Fleet(stack)
        progress.print(f"starting {', '.join(names)}", style="dim")
        fleet.start(names)
        turns = _play_all(fleet, stretches, rounds, seconds, progress)
    report = Report(
        machine=Machine.here(),
        seconds=seconds,
        versions={contender.name: contender.version for contender in fleet.contenders},
        missing=fleet.missing if trace else {**fleet.missing, "trace": "no --trace was given"},
        turns=turns,
    )
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    report.print(Console(width=WIDTH))
    if plot:
        from loadtests.comparison.routing_plot import draw  # noqa: PLC0415 - matplotlib is optional

        draw(plot, report)


def _play_all(
    fleet: Fleet, stretches: Sequence[Stretches], rounds: int, seconds: float, progress: Console
) -> dict[str, dict[str, list[Turn]]]:
    """Every workload in every round by every contender, each time in another order."""
    found: dict[str, dict[str, list[Turn]]] = {
        each.name: {contender.name: [] for contender in fleet.contenders} for each in stretches
    }
    lead_s = LEAD_SHARE * seconds
    for number in range(rounds):
        for each in stretches:
            requests = each.stretch(number, lead_s + seconds)
            for contender in _rotated(fleet.contenders, number):
                title = f"{each.name}, round {number + 1}, {contender.name}"
                try:
                    turn = play(contender, requests, title, lead_s)
                except ClientCut as error:
                    progress.print(f"{title}: once more: {error}", style="red")
                    turn = play(contender, requests, f"{title}, again", lead_s)
                progress.print(f"{title}: {turn}", style="dim", soft_wrap=True, highlight=False)
                found[each.name][contender.name].append(turn)
    return found


def _rotated(items: Sequence[Contender], by: int) -> Iterator[Contender]:
    """All items, beginning with another one."""
    start = by % len(items)
    yield from (*items[start:], *items[:start])


def _named(asked: str, known: Sequence[str], option: str) -> list[str]:
    """What was asked for, each once."""
    names = list(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise ConfigError(f"{option}: unknown `{name}`{nearest(name, known)}")
    if not names:
        raise ConfigError(f"{option}: name at least one; known: {', '.join(known)}")
    return names
