"""What a local gateway prints: lines, and in a terminal a bar while it starts."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def say(text: str) -> None:
    """Print, also to a terminal that may have been closed."""
    with contextlib.suppress(OSError):
        typer.echo(text)


class StartProgress:
    """Progress of a start: a line for each change, and in a terminal how many models are up.

    `models`: number of models that are awaited.
    """

    def __init__(self, models: int, bar: Progress | None = None) -> None:
        self._models = models
        self._bar = bar
        self._task = None if bar is None else bar.add_task("starting", total=models, awaited="")
        self._printed: dict[str, str] = {}
        self._started_s = time.monotonic()

    @classmethod
    @contextmanager
    def shown(cls, models: int) -> Iterator["StartProgress"]:
        """Progress whose bar is there until this is left; without a terminal there is none."""
        if not sys.stdout.isatty():
            yield cls(models)
            return
        columns = (
            *(TextColumn("models"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
            TextColumn("{task.fields[awaited]}", markup=False),
        )
        console = Console(markup=False, highlight=False)
        with Progress(*columns, console=console, transient=True) as bar:
            yield cls(models, bar)

    def show(self, states: Mapping[str, str]) -> None:
        """Print changed states, with the seconds since the start."""
        elapsed_s = time.monotonic() - self._started_s
        for name, state in states.items():
            if self._printed.get(name) != state:
                self._printed[name] = state
                self._print(f"{elapsed_s:6.1f} s  {name}: {state}")

    def count(self, up: int, awaited: str) -> None:
        """Show how many models are up, and which one is awaited."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=min(up, self._models), awaited=awaited)

    def _print(self, line: str) -> None:
        if self._bar is None:
            say(line)
        else:
            with contextlib.suppress(OSError):
                self._bar.console.print(line)
