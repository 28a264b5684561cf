"""What gateways cost on the way from a client to an engine that answers at once.

All contenders are measured in turn, round after round, so that whatever else happens on the machine
happens to all; those whose turn it is not rest. What the figures mean is in loadtests/README.md.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from loadtests import targets
from loadtests.comparison.contenders import contenders, start
from loadtests.comparison.judging import Samples, judge
from loadtests.comparison.machine import Machine
from loadtests.comparison.path_report import WIDTH, Report
from loadtests.comparison.rest import awake
from loadtests.launch import Unavailable, end_in_order
from loadtests.measurement import Load, Sample, measure
from loadtests.targets import Target

WARM_UP = Load(seconds=1)


def main(  # noqa: PLR0913 - each is an option of the command
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each target is measured.")] = 5,
    minutes: Annotated[
        float, typer.Option(min=1, max=60, help="No round begins that would end later.")
    ] = 9.5,
    clients: Annotated[int, typer.Option(min=1, max=256)] = 16,
    seconds: Annotated[float, typer.Option(min=0.5, max=60, help="Of load, per round.")] = 2,
    only: Annotated[str, typer.Option(help="Contenders by name, with commas; else all.")] = "",
    gateway_url: Annotated[str | None, typer.Option(help="A running one, on loopback.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write all figures.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Where to draw them (.png, .svg).")] = None,
) -> None:
    """Compare what gateways cost: requests/s, time to first token, CPU."""
    end_in_order()
    end_s = time.monotonic() + 60 * minutes
    progress, machine = Console(stderr=True), Machine.here()
    load = Load(clients=clients, seconds=seconds)
    with ExitStack() as stack:
        engine = stack.enter_context(targets.engine())
        wanted = contenders(engine.port, gateway_url)
        if only:
            wanted = {name: wanted[name] for name in _named(only, list(wanted))}
        started, missing = start(stack, wanted, progress)
        turns = Turns(engine, started, progress)
        samples = turns.play(load, rounds, end_s)
        missing |= turns.dropped
    versions = {target.name: target.version for target in started if target.version}
    report = Report(machine, load, versions, samples, missing, judge(samples))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    report.print(Console(width=WIDTH))
    if plot:
        from loadtests.comparison.path_plot import draw  # noqa: PLC0415 - matplotlib is optional

        draw(plot, report)


class Turns:
    """The engine alone and all contenders, measured in turn."""

    def __init__(self, engine: Target, started: Sequence[Target], progress: Console) -> None:
        self._engine = engine
        self._started = list(started)
        self._progress = progress
        self.dropped: dict[str, str] = {}
        """Contenders that failed in their turn, and how; the others go on without them."""

    def play(self, load: Load, rounds: int, end_s: float) -> Samples:
        """As many rounds as there is time for, but at least one."""
        self._round("warming up", WARM_UP)
        played: list[dict[str, Sample]] = []
        longest_s = 0.0
        for number in range(rounds):
            began_s = time.monotonic()
            if number and began_s + longest_s > end_s:
                self._progress.print(f"time for {number} rounds only", style="bold")
                break
            played.append(self._round(f"round {number + 1} of {rounds}", load))
            longest_s = max(longest_s, time.monotonic() - began_s)
        names = [target.name for target in (self._engine, *self._started)]
        return {name: [found[name] for found in played] for name in names}

    def _round(self, title: str, load: Load) -> dict[str, Sample]:
        engine = self._engine.engine_processes
        self._progress.print(f"{title}: {self._engine.name}", style="dim")
        found = {self._engine.name: measure(self._engine, load, engine)}
        for target in tuple(self._started):
            self._progress.print(f"{title}: {target.name}", style="dim")
            try:
                with awake(target):
                    found[target.name] = measure(target, load, engine)
            except Unavailable as error:
                self.dropped[target.name] = f"{title}: {error}"
                self._started.remove(target)
        return found


def _named(asked: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in asked.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"--only: unknown {unknown}; known: {', '.join(known)}")
    return names
