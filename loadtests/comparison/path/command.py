"""What gateways cost on the way from a client to an engine, be it one that answers at once.

All contenders are measured in turn, round after round, so that whatever else happens on the machine
happens to all; those whose turn it is not rest. What the figures mean is in loadtests/README.md.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Annotated

import typer
from rich.console import Console

from gateway.errors import ConfigError
from loadtests import targets
from loadtests.comparison.columns import WIDTH
from loadtests.comparison.keeping import keep, replace
from loadtests.comparison.machine import Machine
from loadtests.comparison.naming import named
from loadtests.comparison.options import JsonFile, Plot
from loadtests.comparison.path.contenders import contenders, start
from loadtests.comparison.path.judging import Samples, judge
from loadtests.comparison.path.report import Report
from loadtests.comparison.rest import awake
from loadtests.comparison.rotation import rotated
from loadtests.launch import Unavailable, end_in_order
from loadtests.measurement import Load, Sample, Unsteady, measure
from loadtests.targets import Target

WARM_UP = Load(seconds=1)


def main(  # noqa: PLR0913 - each is an option of the command
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each target is measured.")] = 5,
    minutes: Annotated[
        float, typer.Option(min=1, max=60, help="No round begins that would end later.")
    ] = 9.5,
    clients: Annotated[int, typer.Option(min=1, max=targets.MOST_CLIENTS)] = 16,
    seconds: Annotated[float, typer.Option(min=0.5, max=60, help="Of load, per round.")] = 2,
    token_ms: Annotated[
        float, typer.Option(min=0, max=400, help="Of an engine; 0: it answers at once.")
    ] = 0,
    only: Annotated[str, typer.Option(help="Contenders by name, with commas; else all.")] = "",
    gateway_url: Annotated[str | None, typer.Option(help="A running one, on loopback.")] = None,
    json_file: JsonFile = None,
    plot: Plot = None,
) -> None:
    """Compare what gateways cost: requests/s, time to first token, CPU."""
    if gateway_url and token_ms:
        raise typer.BadParameter(
            "a gateway that runs has engines of its own", param_hint="--token-ms"
        )
    end_in_order()
    end_s = time.monotonic() + 60 * minutes
    progress, machine = Console(stderr=True), Machine.here()
    load = Load(clients=clients, seconds=seconds, token_ms=token_ms)
    try:
        with ExitStack() as stack:
            engine = stack.enter_context(targets.engine(token_ms))
            wanted = contenders(engine.port, gateway_url, token_ms)
            if only:
                wanted = {name: wanted[name] for name in named(only, list(wanted), "--only")}
            started, missing = start(stack, wanted, progress)
            turns = Turns(engine, started, progress)
            samples = turns.play(load, rounds, end_s)
    except (ConfigError, Unavailable) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    versions = {target.name: target.version for target in started if target.version}
    missing |= turns.dropped
    bars = [] if token_ms else judge(samples)  # what they say is of an engine that costs no time
    report = Report(machine, load, versions, samples, missing, bars)
    report.print(Console(width=WIDTH))
    if json_file:
        keep(json_file, report)
    if plot:
        from loadtests.comparison.path.plot import draw  # noqa: PLC0415 - matplotlib is optional

        replace(plot, lambda new: draw(new, report))


class Turns:
    """The engine alone and all contenders, measured in turn."""

    def __init__(self, engine: Target, started: Sequence[Target], progress: Console) -> None:
        self._engine = engine
        self._started = list(started)
        self._progress = progress
        self.dropped: dict[str, str] = {}
        """Who failed in its turn, and how; the others go on without."""

    def play(self, load: Load, rounds: int, end_s: float) -> Samples:
        """As many rounds as there is time for, but at least one; each begins with another target.

        They end with the engine, without which nobody is measured.

        Raises:
            Unavailable: there is no round at all, because the engine failed.
        """
        self._round("warming up", WARM_UP, 0)
        played: list[dict[str, Sample]] = []
        longest_s = 0.0
        for number in range(rounds):
            began_s = time.monotonic()
            if number and began_s + longest_s > end_s:
                self._progress.print(f"time for {number} rounds only", style="bold")
                break
            try:
                played.append(self._round(f"round {number + 1} of {rounds}", load, number))
            except Unavailable as error:
                if not played:
                    raise
                self.dropped[self._engine.name] = str(error)
                break
            longest_s = max(longest_s, time.monotonic() - began_s)
        names = [target.name for target in (self._engine, *self._started)]
        return {name: [found[name] for found in played] for name in names}

    def _round(self, title: str, load: Load, number: int) -> dict[str, Sample]:
        found: dict[str, Sample] = {}
        for target in rotated([self._engine, *self._started], number):
            self._progress.print(f"{title}: {target.name}", style="dim")
            try:
                found[target.name] = self._measured(target, load)
            except Unavailable as error:
                reason = f"{title}: {error}"
                if target is self._engine:
                    raise Unavailable(reason) from None
                self._progress.print(f"{target.name} is out: {reason}", style="red", markup=False)
                self.dropped[target.name] = reason
                self._started.remove(target)
        return found

    def _measured(self, target: Target, load: Load) -> Sample:
        engine = self._engine.engine_processes
        with nullcontext() if target is self._engine else awake(target):
            try:
                return measure(target, load, engine)
            except Unsteady as error:
                self._progress.print(f"{target.name} once more: {error}", style="red")
                return measure(target, load, engine)
