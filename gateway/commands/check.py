"""`gateway check`: validates a deployment file and prints what it would run."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.table import Table

from gateway.cluster.connections import connections_warning, max_files
from gateway.cluster.plan import ModelPlan, NamePlan, Plan, RouterPlan
from gateway.commands.console import plain_console
from gateway.config.engine_check import ask_vllm
from gateway.config.loader import load_config
from gateway.config.packaged import deployment_path
from gateway.errors.startup import ConfigError

MIN_WIDTH = 240
"""Least width of tables in pipes and files."""


def check(
    file: Annotated[Path, typer.Argument(help="YAML file of a deployment.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Validate a deployment file and print what it would run, without starting anything."""
    try:
        file = deployment_path(file)
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


def _warn(message: str) -> None:
    typer.echo(f"warning: {message}", err=True)


def _print_plan(file: Path, plan: Plan) -> None:
    # Pipes and files have no width: there, lines are as long as they need to be.
    console = plain_console(_width(plan))
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
