"""Checks the gateway with real vLLM on this machine's GPUs, in about ten minutes.

    python -m loadtests.gpu_check --model Qwen/Qwen3-0.6B --report gpu-check.md

starts a gateway with one model and takes it through `steps`: each says what is expected. The report
has the machine, the versions, and what each step found. Exit status 1 if a step failed.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from deployments.local import processes
from loadtests.gpu_check.adapters import write_neutral_adapter
from loadtests.gpu_check.client import CheckedGateway
from loadtests.gpu_check.document import model_entry
from loadtests.gpu_check.machine import GpuMachine
from loadtests.gpu_check.report import CheckedStep, Outcome, render
from loadtests.gpu_check.steps import (
    Skipped,
    StepFailed,
    adapter_step,
    answer_step,
    autoscaling_step,
    image_step,
    prefix_step,
    resume_step,
    tensor_step,
)
from loadtests.launch import Unavailable, exit_on_signals
from loadtests.targets import local_gateway, serve_config

DEFAULT_MODEL = "Qwen/Qwen3-0.6B"
DEFAULT_IMAGE = "ray-llm-gateway:0.1.0"
LIMIT_S = 600.0
"""Time for all steps after the start; what has not begun by then is skipped."""

Step = tuple[str, str, Callable[[], str]]
"""Name, expectation, and what is done; it returns what was found."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    model: Annotated[str, typer.Option(help="A small model: a name on the hub, or a path.")] = (
        DEFAULT_MODEL
    ),
    adapter: Annotated[
        str, typer.Option(help="A LoRA adapter of it; by default one that changes nothing is made.")
    ] = "",
    image: Annotated[str, typer.Option(help="The gateway's image, if it is built here.")] = (
        DEFAULT_IMAGE
    ),
    report: Annotated[Path, typer.Option(help="File of the report.")] = Path("gpu-check.md"),
    *,
    on_cpu: Annotated[
        bool, typer.Option("--on-cpu", help="Run the engines on the CPU, to try the check itself.")
    ] = False,
) -> None:
    """Check the gateway with real vLLM on this machine's GPUs."""
    exit_on_signals()
    machine = GpuMachine.look()
    if not machine.gpus and not on_cpu:
        raise SystemExit(
            "no GPU is found (`nvidia-smi` lists none); --on-cpu tries the check itself"
        )
    results: list[CheckedStep] = []
    try:
        for result in run(machine, model, adapter, image, on_cpu=on_cpu):
            results.append(result)
            typer.echo(
                f"{result.outcome:>7}  {result.seconds:6.1f} s  {result.name}: {result.found}"
            )
    finally:
        report.write_text(render(machine, model, results))
        typer.echo(f"report: {report.resolve()}")
    if any(result.outcome is Outcome.FAILED for result in results):
        raise SystemExit(1)


def run(
    machine: GpuMachine, model: str, adapter: str, image: str, *, on_cpu: bool
) -> Iterator[CheckedStep]:
    """The results of all steps, each as soon as it is there."""
    gpus = 0 if on_cpu else len(machine.gpus)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-check-")))
        port = processes.free_port()
        began_s = time.monotonic()
        name, expected = "start", "vLLM loads the model, and the gateway answers for it"
        try:
            source = adapter or str(write_neutral_adapter(model, folder / "adapter"))
            entry = model_entry(model, source, gpus)
            running = stack.enter_context(local_gateway(serve_config(port, entry)))
        except (Unavailable, OSError, ValueError) as error:
            yield CheckedStep.since(began_s, name, expected, Outcome.FAILED, str(error))
            return
        found = f"{'CPU' if on_cpu else f'{gpus} GPUs'}, {port=}"
        yield CheckedStep.since(began_s, name, expected, Outcome.PASSED, found)
        gateway = stack.enter_context(CheckedGateway.at(running.url))
        environment = os.environ | dict(running.environment)
        steps = _steps(gateway, entry, image, port, gpus, environment)
        yield from _results(steps, time.monotonic() + LIMIT_S)


def _steps(
    gateway: CheckedGateway,
    entry: dict[str, object],
    image: str,
    port: int,
    gpus: int,
    environment: dict[str, str],
) -> list[Step]:
    return [
        (
            "answer",
            "the same answer twice at temperature 0, whole and as a stream, with usage",
            lambda: answer_step(gateway),
        ),
        (
            "LoRA",
            "the adapter is a model of its own, is loaded by the engine, and answers",
            lambda: adapter_step(gateway),
        ),
        (
            "autoscaling",
            "under load, a second replica starts, and no request fails",
            lambda: autoscaling_step(gateway),
        ),
        (
            "prefix routing",
            "prompts that begin alike go to one replica, which has most of their tokens cached",
            lambda: prefix_step(gateway),
        ),
        (
            "resume",
            "a stream whose engine is killed (kill -9) goes on, without an error, to its end",
            lambda: resume_step(gateway),
        ),
        (
            "tensor parallel",
            "the model runs on two GPUs together, and answers",
            lambda: tensor_step(gateway, entry, port, gpus, environment),
        ),
        (
            "image",
            "the image sees the GPUs, and checks its own config",
            lambda: image_step(image, shutil.which("docker")),
        ),
    ]


def _results(steps: list[Step], until_s: float) -> Iterator[CheckedStep]:
    for name, expected, act in steps:
        began_s = time.monotonic()
        if began_s > until_s:
            outcome, found = Outcome.SKIPPED, f"not begun within {LIMIT_S:g} s"
        else:
            outcome, found = _taken(act)
        yield CheckedStep.since(began_s, name, expected, outcome, found)


def _taken(act: Callable[[], str]) -> tuple[Outcome, str]:
    """How a step ends, and what it has found."""
    try:
        return Outcome.PASSED, act()
    except Skipped as reason:
        return Outcome.SKIPPED, str(reason)
    except StepFailed as error:
        return Outcome.FAILED, str(error)
    except Exception as error:  # noqa: BLE001 - the other steps say more
        return Outcome.FAILED, f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    app()
