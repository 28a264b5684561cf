"""The `gateway` command."""

import json
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.configfile import DeploymentFile, ModelApplication, load_config
from gateway.errors import ConfigError
from gateway.placement import place
from gateway.registry.model import ModelEntry
from gateway.registry.sim import SimEntry
from gateway.registry.vllm import Gpu, VllmEntry
from gateway.simulation.command import command as simulate

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What one model takes, per replica and at its least and most replicas."""

    model: str
    application: str
    engine: str
    source: str | None
    min_replicas: int
    max_replicas: int
    workers: int
    gpus: int
    cpus: float
    accelerator: str | None
    executor: str | None
    placement: str | None

    @classmethod
    def of(cls, application: ModelApplication) -> "ModelPlan":
        """The plan of a model's application."""
        entry = application.entry
        placement = place(entry)
        return cls(
            model=entry.name,
            application=application.name,
            engine=entry.engine,
            source=entry.source if isinstance(entry, VllmEntry) else None,
            min_replicas=entry.min_replicas,
            max_replicas=entry.max_replicas,
            workers=placement.workers,
            gpus=placement.gpus,
            cpus=placement.cpus,
            accelerator=_accelerator(entry),
            executor=placement.executor,
            placement=placement.strategy,
        )


def _accelerator(entry: ModelEntry) -> str | None:
    """The GPU's type, or `gpu` for any, or `cpu`; None for an engine that uses neither."""
    if isinstance(entry, SimEntry):
        return None
    return entry.accelerator.type or "gpu" if isinstance(entry.accelerator, Gpu) else "cpu"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file deploys, and what all of its engines take together."""

    models: list[ModelPlan]
    min_gpus: int
    max_gpus: int
    min_cpus: float
    max_cpus: float

    @classmethod
    def of(cls, deployment: DeploymentFile) -> "Plan":
        """The plan of a deployment's file."""
        models = [ModelPlan.of(application) for application in deployment.models]
        return cls(
            models=models,
            min_gpus=sum(m.min_replicas * m.gpus for m in models),
            max_gpus=sum(m.max_replicas * m.gpus for m in models),
            min_cpus=round(sum(m.min_replicas * m.cpus for m in models), 4),
            max_cpus=round(sum(m.max_replicas * m.cpus for m in models), 4),
        )


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
    file: Annotated[Path, typer.Argument(help="A deployment's YAML file.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Validate a deployment's file and print what it would run; starts nothing."""
    try:
        plan = Plan.of(load_config(file))
    except ConfigError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(asdict(plan), indent=2))
    else:
        _print_plan(file, plan)


app.command("simulate")(simulate)


def _print_plan(file: Path, plan: Plan) -> None:
    table = Table("model", "engine", "source", "replicas", "workers", "GPUs", "CPUs")
    table.add_column("executor")
    table.add_column("placement")
    for m in plan.models:
        span = "" if m.max_replicas == m.min_replicas else f"-{m.max_replicas}"
        type_ = f" {m.accelerator}" if m.accelerator not in {None, "cpu", "gpu"} else ""
        table.add_row(
            *(m.model, m.engine, m.source or "-", f"{m.min_replicas}{span}", f"{m.workers}"),
            *(f"{m.gpus}{type_}", f"{m.cpus:g}", m.executor or "-", m.placement or "-"),
        )
    # A pipe or a file has no width to fit: leave lines whole there.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 240)
    console.print(table)
    console.print("workers, GPUs and CPUs are those of one replica")
    console.print(f"at min replicas: {plan.min_gpus} GPUs, {plan.min_cpus:g} CPUs")
    console.print(f"at max replicas: {plan.max_gpus} GPUs, {plan.max_cpus:g} CPUs")
    console.print(f"{file}: OK")
