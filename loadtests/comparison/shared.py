"""Common parts of the comparisons: options, rounds, tables and report files."""

import datetime as dt
import platform
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import msgspec
import psutil
import typer
from rich.console import Console
from rich.table import Table

from gateway.config.strict import suggestion
from gateway.errors.startup import ConfigError
from loadtests.launch import Unavailable
from loadtests.loadgen.summary import Spread

TABLE_WIDTH = 170
"""Columns, even if the terminal has fewer."""
T = TypeVar("T")
C = TypeVar("C")
R = TypeVar("R")

JsonFile = Annotated[Path | None, typer.Option("--json", help="Where to write all figures.")]
Plot = Annotated[Path | None, typer.Option(help="Where to draw them (.png, .svg).")]
Minutes = Annotated[
    float, typer.Option(min=1, max=60, help="Time limit: no round starts that would end later.")
]


def parsed_names(value: str, known: Sequence[str], option: str) -> list[str]:
    """The names in an option's value, which has commas between them, each once.

    Raises:
        ConfigError: there are none, or one is not known.
    """
    names = list(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise ConfigError(f"{option}: unknown `{name}`{suggestion(name, known)}")
    if not names:
        raise ConfigError(f"{option}: name at least one; known: {', '.join(known)}")
    return names


class Rounds(Generic[C, R]):
    """Rounds in which all contenders are measured in turn, each round starting with another one.

    Whatever else happens on the machine then happens to all. A contender that cannot be measured,
    `tries` times in a row, is dropped, and the others go on.
    """

    def __init__(self, contenders: Mapping[str, C], progress: Console, tries: int = 1) -> None:
        self._contenders = dict(contenders)
        self._progress = progress
        self._tries = tries
        self.results: dict[str, list[R]] = {name: [] for name in contenders}
        """Results by contender, dropped ones included; one per round."""
        self.dropped: dict[str, str] = {}
        """Contenders that were dropped, and why."""

    def run(
        self,
        measure: Callable[[C, int], R],
        rounds: int,
        end_s: float,
        required: Collection[str] = (),
    ) -> dict[str, list[R]]:
        """Warm up, then play as many rounds as there is time for until `end_s`, at least one.

        `measure` gets the number of the round, from 1 on, and 0 to warm up. The rounds end if a
        required contender is dropped. The result has the whole rounds of the remaining contenders
        and of the required ones.
        """
        number = 0

        def measure_round(contender: C, _: str) -> R:
            return measure(contender, number)

        self.play(0, "warming up", measure_round)
        for results in self.results.values():
            results.clear()
        complete, longest_s = 0, 0.0
        while complete < rounds and not self.dropped.keys() & {*required}:
            start_s = time.monotonic()
            if complete and start_s + longest_s > end_s:
                self._print(f"time for {complete} rounds only", "bold")
                break
            number = complete + 1
            title = f"round {number} of {rounds}"
            self.play(complete, title, measure_round)
            complete += not self.dropped.keys() & {*required}
            longest_s = max(longest_s, time.monotonic() - start_s)
        kept = [name for name in self.results if name in required or name not in self.dropped]
        return {name: self.results[name][:complete] for name in kept}

    def play(self, number: int, title: str, measure: Callable[[C, str], R]) -> None:
        """Play a round; `measure` gets the contender and a title, and raises `Unavailable`."""
        names = [name for name in self._contenders if name not in self.dropped]
        for name in rotated(names, number):
            self._play_one(name, f"{title}, {name}", measure)

    def _play_one(self, name: str, title: str, measure: Callable[[C, str], R]) -> None:
        for left in reversed(range(self._tries)):
            try:
                result = measure(self._contenders[name], title)
            except Unavailable as error:
                self._print(f"{title}: {'once more' if left else 'dropped'}: {error}", "red")
                if not left:
                    self.dropped[name] = f"{title}: {error}"
                title = f"{title}, again"
            else:
                self._print(f"{title}: {result}", "dim")
                self.results[name].append(result)
                return

    def _print(self, text: str, style: str) -> None:
        self._progress.print(text, style=style, soft_wrap=True, highlight=False, markup=False)


def rotated(items: Sequence[T], by: int) -> list[T]:
    """All items, starting at another one."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]


class Machine(msgspec.Struct, frozen=True):
    """The machine and the time of a comparison."""

    cpus: int
    memory_gib: int
    system: str
    python: str
    date: str
    """UTC, at the start."""

    @classmethod
    def here(cls) -> "Machine":
        """This machine, now."""
        return cls(
            cpus=psutil.cpu_count() or 0,
            memory_gib=round(psutil.virtual_memory().total / 2**30),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            date=dt.datetime.now(dt.UTC).isoformat(timespec="minutes"),
        )

    def __str__(self) -> str:
        """All of it in one line."""
        hardware = f"{self.cpus} CPUs, {self.memory_gib} GiB, {self.system}"
        return f"{hardware}, Python {self.python}, {self.date}"


def figures_table(
    title: str, headings: Iterable[str], caption: str | None = None, *, show_lines: bool = False
) -> Table:
    """A table with a column of names and right-aligned columns of figures."""
    table = Table(title=title, caption=caption, show_lines=show_lines)
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def spread_cell(spread: Spread, digits: int) -> str:
    """A figure over all rounds as a table's cell, in two lines."""
    median, least, most = (f"{f:,.{digits}f}" for f in (spread.median, spread.least, spread.most))
    return f"{median}\n{least}-{most}"


def write_json(path: Path, report: msgspec.Struct) -> None:
    """Write a report, in place of an earlier one.

    Raises:
        OSError: it cannot be written there.
    """
    content = msgspec.json.format(msgspec.json.encode(report))
    write_atomically(path, lambda new: new.write_bytes(content))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and rename it, so that it is whole at any time.

    Raises:
        OSError: it cannot be written there.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        new = Path(folder, path.name)
        write(new)
        new.replace(path)
