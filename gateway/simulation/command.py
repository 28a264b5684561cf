"""`gateway simulate`: compares routing policies, or projects, on a workload, without a cluster."""

import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.config.policy_names import policy_names
from gateway.config.strict import suggestion
from gateway.errors.startup import ConfigError
from gateway.simulation.batching import EngineProfile
from gateway.simulation.comparison import Comparison
from gateway.simulation.fairness import FairnessComparison
from gateway.simulation.settings import SimulationSettings
from gateway.simulation.trace import BLOCK_TOKENS, Workload, read_trace
from gateway.simulation.workloads import DEFAULT_REQUESTS, GENERATORS, generate_workload

PLOT_FORMATS = (".png", ".svg", ".pdf")


class StartOrder(StrEnum):
    """Order in which an engine starts waiting requests."""

    PRIORITY = "priority"
    FIFO = "fifo"


def command(  # noqa: PLR0913 - each is an option of the command
    trace: Annotated[
        str,
        typer.Argument(
            help="A file in Mooncake's trace format (.jsonl or .jsonl.gz), or a generated "
            f"workload: {', '.join(GENERATORS)}."
        ),
    ],
    *,
    replicas: Annotated[int, typer.Option(min=1, help="Engine replicas.")] = 8,
    kv_tokens: Annotated[
        int, typer.Option(min=BLOCK_TOKENS, help="Tokens in a replica's KV cache: blocks of 512.")
    ] = 600 * BLOCK_TOKENS,
    policy: Annotated[
        str, typer.Option(help="Policies to compare, separated by commas.")
    ] = ",".join(policy_names()),
    routers: Annotated[
        int, typer.Option(min=1, help="Router replicas; requests go to them in turn.")
    ] = 1,
    speed: Annotated[
        float, typer.Option(min=0.001, help="Factor by which requests arrive faster.")
    ] = 1.0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Simulate only this many requests, from the start.")
    ] = None,
    spread: Annotated[
        bool,
        typer.Option(
            help="Spread requests with one timestamp evenly up to the next, as traces have coarse "
            "clocks, or let them all arrive at once.",
        ),
    ] = True,
    order: Annotated[
        StartOrder, typer.Option(help="Order in which an engine starts waiting requests.")
    ] = StartOrder.PRIORITY,
    step_ms: Annotated[
        float, typer.Option(min=0.001, help="Base duration of an engine's step.")
    ] = 12.0,
    prefill_ms: Annotated[
        float, typer.Option(min=0, help="Additional time per prompt token.")
    ] = 0.1,
    sequence_ms: Annotated[
        float, typer.Option(min=0, help="Additional time per decoding sequence.")
    ] = 0.2,
    step_tokens: Annotated[int, typer.Option(min=1, help="Most tokens in one step.")] = 4096,
    max_running: Annotated[int, typer.Option(min=1, help="Most sequences in a replica.")] = 64,
    telemetry_ms: Annotated[
        float, typer.Option(min=0, help="Least time between two telemetry updates of a replica.")
    ] = 50.0,
    projects: Annotated[
        str | None,
        typer.Option(
            help="Compare projects of these weights, such as 4:1, instead of policies: all flood "
            "the model at once, through one router and through --routers (at least two)."
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="Simulated seconds of each load, with --projects.")
    ] = 400.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Plot the figures into this file (.png, .svg or .pdf).")
    ] = None,
) -> None:
    """Compare routing policies on a workload: the gateway's own code with simulated engines.

    Time is virtual: nothing is started, and the same command always prints the same figures.
    """
    try:
        policies = _policies(policy)
        if plot is not None:
            _check_plot(plot, projects)
        workload = _workload(trace, limit).at_speed(speed)
        workload = workload.spread() if spread else workload
        engine = EngineProfile(
            kv_blocks=kv_tokens // BLOCK_TOKENS,
            block_size=BLOCK_TOKENS,
            max_running=max_running,
            step_tokens=step_tokens,
            step_s=step_ms / 1000,
            step_s_per_prefill_token=prefill_ms / 1000,
            step_s_per_sequence=sequence_ms / 1000,
        )
        settings = SimulationSettings(
            replicas=replicas,
            engine=engine,
            routers=routers,
            is_priority=order is StartOrder.PRIORITY,
            telemetry_every_s=telemetry_ms / 1000,
        )
        comparison = (
            Comparison.of(workload, policies, settings)
            if projects is None
            else FairnessComparison.of(workload, _weights(projects), settings, seconds)
        )
        if plot is not None and isinstance(comparison, Comparison):
            _plot(plot, comparison)
    except ConfigError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(comparison.json())
    else:
        # A pipe or a file has no width to fit: leave lines whole there.
        width = None if sys.stdout.isatty() else 240
        comparison.print(Console(markup=False, highlight=False, width=width))


def _policies(names: str) -> list[str]:
    """Parse the list of policies; drop repeated ones."""
    requested = [name.strip() for name in names.split(",") if name.strip()]
    known = policy_names()
    for name in requested:
        if name not in known:
            raise ConfigError(f"--policy: unknown policy `{name}`{suggestion(name, known)}")
    if not requested:
        raise ConfigError(f"--policy: name at least one; known: {', '.join(known)}")
    return list(dict.fromkeys(requested))


def _workload(trace: str, limit: int | None) -> Workload:
    if trace in GENERATORS:
        return generate_workload(trace, limit or DEFAULT_REQUESTS)
    path = Path(trace)
    if not path.exists():
        raise ConfigError(
            f"{trace}: no such file or generated workload{suggestion(trace, GENERATORS)}"
        )
    return read_trace(path, limit)


def _weights(projects: str) -> list[float]:
    try:
        weights = [float(weight) for weight in projects.split(":")]
    except ValueError:
        weights = []
    if len(weights) < 2 or not all(0 < weight < math.inf for weight in weights):
        raise ConfigError("--projects: name at least two weights above 0, such as 4:1")
    return weights


def _check_plot(path: Path, projects: str | None) -> None:
    """Check, before the simulation runs, that the plot can be written."""
    if projects is not None:
        raise ConfigError("--plot: there is no plot of projects")
    if path.suffix not in PLOT_FORMATS:
        raise ConfigError(f"--plot: {path} must end in one of {', '.join(PLOT_FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--plot: {path.parent} is not a directory")
    try:
        import matplotlib  # noqa: F401, ICN001, PLC0415 - optional, and slow to import
    except ModuleNotFoundError:
        raise ConfigError("--plot needs matplotlib: pip install 'ray-llm-gateway[plot]'") from None


def _plot(path: Path, comparison: Comparison) -> None:
    from gateway.simulation.plot import draw  # noqa: PLC0415 - needs matplotlib, which is optional

    try:
        draw(path, comparison)
    except OSError as error:
        raise ConfigError(f"--plot: {path}: {error.strerror or error}") from None
