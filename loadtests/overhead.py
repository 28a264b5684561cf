"""What the gateway costs on the way from a client to an engine, beside vLLM's own router.

`python -m loadtests.overhead` starts an engine that answers at once and everything that can stand
in front of it, then measures them in turn, round after round, so that whatever else happens on the
machine happens to all. What the figures mean is in loadtests/README.md.
"""

import platform
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import msgspec
import psutil
import typer
from rich.console import Console
from rich.table import Table

from loadtests import targets
from loadtests.measurement import Load, Sample, Spread, measure, spread
from loadtests.targets import Target, Unavailable

WARM_UP = Load(seconds=1)

WIDTH = 170
"""Columns of the tables, also where the terminal has fewer."""

MOST_ADDED_TTFT_MS = 0.8
LEAST_THROUGHPUT_RATIO = 1.1
MOST_CPU_RATIO = 1.0

Samples = dict[str, list[Sample]]


_COLUMNS: Sequence[tuple[str, Callable[[Sample, Sample], float], int]] = [
    ("requests/s", lambda a, _: a.requests_per_s, 0),
    ("chunks/s", lambda a, _: a.chunks_per_s, 0),
    ("TTFT\np50 ms", lambda a, _: a.ttft_p50_ms, 2),
    ("added\nms", lambda a, b: a.ttft_p50_ms - b.ttft_p50_ms, 2),
    ("TTFT\np99 ms", lambda a, _: a.ttft_p99_ms, 2),
    ("in a burst\np50 ms", lambda a, _: a.burst_ttft_p50_ms, 2),
    ("added\nms", lambda a, b: a.burst_ttft_p50_ms - b.burst_ttft_p50_ms, 2),
    ("CPU s per\n1,000 requests", lambda a, _: a.cpu_s_per_1000, 3),
    ("CPUs\nbeside", lambda a, _: a.beside_cpus, 2),
]
"""Heading, figure (of a sample and its round's `direct`) and digits shown."""


class Bar(msgspec.Struct, frozen=True):
    """Something the gateway should reach."""

    name: str
    reached: Spread
    limit: float
    is_met: bool


class Report(msgspec.Struct, frozen=True):
    """Everything one run found."""

    machine: str
    load: Load
    samples: Samples
    missing: dict[str, str]
    bars: list[Bar]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each target is measured.")] = 5,
    clients: Annotated[int, typer.Option(min=1, max=256)] = 16,
    seconds: Annotated[float, typer.Option(min=0.5, max=60, help="Of load, per round.")] = 3,
    gateway_url: Annotated[str | None, typer.Option(help="A running one, on loopback.")] = None,
    json: Annotated[Path | None, typer.Option(help="Where to write all figures.")] = None,
) -> None:
    """Measure what the gateway costs."""
    signal.signal(signal.SIGTERM, _end)
    progress = Console(stderr=True)
    load = Load(clients=clients, seconds=seconds)
    with ExitStack() as stack:
        started, missing = _start(stack, gateway_url, progress)
        samples = _measure_in_turn(started, load, rounds, progress)
    report = Report(_machine(), load, samples, missing, judge(samples))
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    _print(report, Console(width=WIDTH))


def _start(
    stack: ExitStack, gateway_url: str | None, progress: Console
) -> tuple[list[Target], dict[str, str]]:
    """All targets that can be had, and why the others cannot."""
    engine = stack.enter_context(targets.engine())
    contenders: dict[str, Callable[[], AbstractContextManager[Target]]] = {
        "router": partial(targets.router, engine.port),
        "gateway": partial(targets.gateway, gateway_url),
        "vllm-router cache_aware": partial(targets.vllm_router, "cache_aware", engine.port),
        "vllm-router round_robin": partial(targets.vllm_router, "round_robin", engine.port),
    }
    started, missing = [engine], {}
    for name, contender in contenders.items():
        progress.print(f"starting {name}", style="dim")
        try:
            started.append(stack.enter_context(contender()))
        except Unavailable as error:
            missing[name] = str(error)
    return started, missing


def _measure_in_turn(
    started: Sequence[Target], load: Load, rounds: int, progress: Console
) -> Samples:
    samples: Samples = {target.name: [] for target in started}
    for target in started:
        measure(target, WARM_UP)
    for number in range(rounds):
        for target in started:
            progress.print(f"round {number + 1} of {rounds}: {target.name}", style="dim")
            samples[target.name].append(measure(target, load))
    return samples


def judge(samples: Samples) -> list[Bar]:
    """What the deployed gateway should reach, as far as there is something to compare it with."""
    bars: list[Bar] = []
    ours = samples.get("gateway")
    if ours is None:
        return bars
    direct = samples["direct"]
    added = spread(ours, direct, lambda a, b: a.ttft_p50_ms - b.ttft_p50_ms)
    bars.append(_at_most("added TTFT p50, ms", added, MOST_ADDED_TTFT_MS))
    added = spread(ours, direct, lambda a, b: a.burst_ttft_p50_ms - b.burst_ttft_p50_ms)
    bars.append(_at_most("added TTFT p50 in a burst, ms", added, MOST_ADDED_TTFT_MS))
    for name in (name for name in samples if name.startswith("vllm-router")):
        theirs = samples[name]
        ratio = spread(ours, theirs, lambda a, b: a.requests_per_s / b.requests_per_s)
        bars.append(_at_least(f"requests/s over {name}'s", ratio, LEAST_THROUGHPUT_RATIO))
        ratio = spread(ours, theirs, lambda a, b: a.cpu_s_per_1000 / b.cpu_s_per_1000)
        bars.append(_at_most(f"CPU per request over {name}'s", ratio, MOST_CPU_RATIO))
    return bars


def _at_most(name: str, reached: Spread, limit: float) -> Bar:
    return Bar(f"{name}: at most", reached, limit, reached.median <= limit)


def _at_least(name: str, reached: Spread, limit: float) -> Bar:
    return Bar(f"{name}: at least", reached, limit, reached.median >= limit)


def _machine() -> str:
    memory_gib = psutil.virtual_memory().total / 2**30
    return (
        f"{psutil.cpu_count()} CPUs, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}"
        f", Python {platform.python_version()}"
    )


def _print(report: Report, console: Console) -> None:
    console.print(_figures(report))
    if report.bars:
        console.print(_bars_table(report.bars))
    for name, why in report.missing.items():
        console.print(f"[bold]{name} skipped:[/bold] {why}")


def _figures(report: Report) -> Table:
    load = report.load
    table = Table(
        title=f"{load.clients} clients, streams of {load.chunks} tokens; TTFT with one client",
        caption=f"median, least-most; {report.machine}",
        show_lines=True,
    )
    table.add_column("", no_wrap=True)
    for heading, _, _ in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    direct = report.samples["direct"]
    for name, samples in report.samples.items():
        figures = [
            _shown(spread(samples, direct, figure), digits) for _, figure, digits in _COLUMNS
        ]
        table.add_row(name, *figures)
    return table


def _bars_table(bars: Sequence[Bar]) -> Table:
    table = Table(title="What the deployed gateway should reach")
    for heading in ("", "median", "least-most", "bar", ""):
        table.add_column(heading, no_wrap=True)
    for bar in bars:
        verdict = "met" if bar.is_met else "[red]missed[/red]"
        table.add_row(bar.name, *_shown(bar.reached, 2).split("\n"), f"{bar.limit:g}", verdict)
    return table


def _shown(figures: Spread, digits: int) -> str:
    median, least, most = (
        f"{f:,.{digits}f}" for f in (figures.median, figures.least, figures.most)
    )
    return f"{median}\n{least}-{most}"


def _end(number: int, frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that everything started is stopped."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    typer.run(main)
