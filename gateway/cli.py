"""The `gateway` command."""

import json
import os
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from gateway.cluster.connections import connections_warning, max_files
from gateway.cluster.plan import ModelPlan, NamePlan, Plan, RouterPlan
from gateway.commands import keys, projects, usage
from gateway.commands.doctor import doctor
from gateway.config.engine_check import ask_vllm
from gateway.config.loader import load_config
from gateway.environment import installed_haproxy, recommended
from gateway.errors.startup import ConfigError
from gateway.reference.pages import Topic, filled, printed
from gateway.simulation.command import command as simulate

MIN_WIDTH = 240
"""Least width of tables in pipes and files."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ray-llm-gateway {version('ray-llm-gateway')}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version_: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """An OpenAI-compatible gateway in front of many vLLM models on Ray Serve."""


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="YAML file of a deployment.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Validate a deployment file and print what it would run, without starting anything."""
    try:
        deployment = load_config(file, lambda entries: ask_vllm(entries, _warn))
    except ConfigError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(1) from None
    for warning in deployment.warnings:
        _warn(warning)
    if scarce := connections_warning(deployment, max_files(), os.environ):
        _warn(f"{file}: {scarce}")
    plan = Plan.of(deployment)
    if as_json:
        typer.echo(json.dumps(asdict(plan), indent=2))
    else:
        _print_plan(file, plan)


@app.command()
def docs(
    topic: Annotated[Topic, typer.Argument(help="Which tables to print.")] = Topic.CONFIG,
    *,
    update: Annotated[
        Path | None,
        typer.Option(help="Instead of printing, fill the tables into the pages of this folder."),
    ] = None,
) -> None:
    """Print reference tables as Markdown, or bring pages up to date with them."""
    if update is None:
        sys.stdout.write(printed(topic))
        return
    for path in sorted(update.glob("*.md")):
        path.write_text(filled(path.read_text()))


@app.command()
def env() -> None:
    """Print the variables to set before Ray starts, for `eval "$(gateway env)"`."""
    try:
        variables = recommended(installed_haproxy())
    except FileNotFoundError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


app.command("doctor")(doctor)
app.command("simulate")(simulate)
app.command("usage")(usage.usage)
app.command("costs")(usage.costs)
app.add_typer(projects.app, name="projects")
app.add_typer(keys.app, name="keys")


def _warn(message: str) -> None:
    typer.echo(f"warning: {message}", err=True)


def _print_plan(file: Path, plan: Plan) -> None:
    # Pipes and files have no width: there, lines are as long as they need to be.
    width = None if sys.stdout.isatty() else _width(plan)
    console = Console(markup=False, highlight=False, width=width)
    console.print(_model_table(plan))
    console.print("workers, GPUs and CPUs are per replica")
    console.print(f"routers: {_span(plan.routers)}, with {plan.routers.cpus:g} CPUs each")
    console.print(f"at min replicas: {plan.min_gpus:g} GPUs, {plan.min_cpus:g} CPUs")
    console.print(f"at max replicas: {plan.max_gpus:g} GPUs, {plan.max_cpus:g} CPUs")
    console.print(
        f"while entries change: {plan.surge_gpus:g} more GPUs, {plan.surge_cpus:g} more CPUs;"
        " if there is no room for a changed replica, old ones stop first"
    )
    if plan.names:
        console.print(_name_table(plan.names))
    console.print(f"{file}: OK")


def _model_table(plan: Plan) -> Table:
    headings = ("model", "engine", "source", "replicas", "workers", "GPUs", "CPUs")
    table = _folding_table(*headings, "executor", "placement")
    for m in plan.models:
        type_ = f" {m.accelerator}" if m.accelerator not in {None, "cpu", "gpu"} else ""
        table.add_row(
            *(m.model, m.engine, m.source or "-", _span(m), f"{m.workers}"),
            *(f"{m.gpus:g}{type_}", f"{m.cpus:g}", m.executor or "-", m.placement or "-"),
        )
    return table


def _folding_table(*headings: str) -> Table:
    """Table that folds a long name into several lines, and cuts none."""
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _span(plan: ModelPlan | RouterPlan) -> str:
    """Numbers of replicas, at least and at most."""
    least, most = plan.min_replicas, plan.max_replicas
    return f"{least}" if least == most else f"{least}-{most}"


def _width(plan: Plan) -> int:
    """Width at which no name is folded."""
    texts = [f"{m.model}{m.source or ''}" for m in plan.models]
    texts += [f"{n.name}{_shares(n.shares)}{_shares(n.shadow)}{n.fallbacks}" for n in plan.names]
    return max(MIN_WIDTH, *(cell_len(text) + MIN_WIDTH // 2 for text in texts), 0)


def _name_table(names: list[NamePlan]) -> Table:
    table = _folding_table("name", "kind", "goes to", "falls back to", "copies go to")
    for n in names:
        goes_to = _shares(n.shares) if n.kind == "split" else ", ".join(n.shares)
        fallbacks = ", ".join(n.fallbacks)
        table.add_row(n.name, n.kind, goes_to or "-", fallbacks or "-", _shares(n.shadow) or "-")
    return table


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.3g} %" for name, share in shares.items())
