"""Comparison of the data path: the cost of gateways in front of a fast simulated engine.

All contenders are measured in turn, round after round, so that whatever else happens on the machine
happens to all; the others are suspended meanwhile. loadtests/README.md explains the figures.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from gateway.errors.startup import ConfigError
from gateway.simulation.results import percentile
from loadtests import targets
from loadtests.comparison.path_report import PathLoad, PathReport, Sample, Samples, draw, goals
from loadtests.comparison.shared import (
    TABLE_WIDTH,
    JsonFile,
    Machine,
    Minutes,
    Plot,
    Rounds,
    parsed_names,
    write_atomically,
    write_json,
)
from loadtests.comparison.suspend import resumed, start_suspended
from loadtests.cpu_time import CpuTime, Processes
from loadtests.launch import HOST, MODEL, Unavailable, exit_on_signals
from loadtests.loadgen.worker import SaturationJob, SaturationResult, WorkerFailed, saturate
from loadtests.peers import ray_llm
from loadtests.peers.litellm import litellm
from loadtests.peers.rust_routers import smg, vllm_router
from loadtests.targets import LoadTarget

WARM_UP = PathLoad(seconds=1)
UNLIMITED = 1_000_000
"""More requests than any target answers in the time."""
SINGLE_REQUESTS = 400
"""Most requests of the single client, whose TTFTs are measured."""

Start = Callable[[], AbstractContextManager[LoadTarget]]


def main(  # noqa: PLR0913 - each is an option of the command
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each target.")] = 5,
    minutes: Minutes = 9.5,
    clients: Annotated[int, typer.Option(min=1, max=targets.MAX_CLIENTS)] = 16,
    seconds: Annotated[
        float, typer.Option(min=0.5, max=60, help="Seconds of load in each round.")
    ] = 2,
    token_ms: Annotated[
        float,
        typer.Option(
            min=0, max=400, help="Time of the engines for a token; 0: they answer at once."
        ),
    ] = 0,
    only: Annotated[str, typer.Option(help="Contenders by name, with commas; else all.")] = "",
    gateway_url: Annotated[str | None, typer.Option(help="A running gateway on loopback.")] = None,
    json_file: JsonFile = None,
    plot: Plot = None,
) -> None:
    """Compare what gateways cost: requests/s, time to first token, CPU."""
    if gateway_url and token_ms:
        raise typer.BadParameter(
            "a running gateway has engines of its own", param_hint="--token-ms"
        )
    exit_on_signals()
    end_s = time.monotonic() + 60 * minutes
    progress, machine = Console(stderr=True), Machine.here()
    load = PathLoad(clients=clients, seconds=seconds, token_ms=token_ms)
    try:
        with ExitStack() as stack:
            engine = stack.enter_context(targets.engine(token_ms))
            known = contenders(engine.port, gateway_url, token_ms)
            names = parsed_names(only, list(known), "--only") if only else list(known)
            started, missing = start(stack, {name: known[name] for name in names}, progress)
            samples, dropped = play(engine, started, load, rounds, end_s, progress)
    except (ConfigError, Unavailable) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    report = PathReport(
        machine=machine,
        load=load,
        versions={target.name: target.version for target in started if target.version},
        samples=samples,
        missing=missing | dropped,
        bars=[] if token_ms else goals(samples),  # which are for an instant engine
    )
    report.print(Console(width=TABLE_WIDTH))
    if json_file:
        write_json(json_file, report)
    if plot:
        write_atomically(plot, lambda new: draw(new, report))


def contenders(engine_port: int, gateway_url: str | None, token_ms: float) -> dict[str, Start]:
    """All contenders by name; those with engines of their own get the same `token_ms`."""
    variants = [ray_llm.DEFAULT, ray_llm.TOKENWISE, ray_llm.OPTIMISED, ray_llm.DIRECT]
    return {
        "router": partial(targets.router, engine_port),
        "gateway": partial(targets.gateway, gateway_url, token_ms),
        "vllm-router cache_aware": partial(vllm_router, "cache_aware", [engine_port]),
        "vllm-router round_robin": partial(vllm_router, "round_robin", [engine_port]),
        "smg cache_aware": partial(smg, "cache_aware", [engine_port]),
        "litellm": partial(litellm, engine_port),
        **{v.name: partial(ray_llm.ray_llm, v.with_token_ms(token_ms)) for v in variants},
    }


def start(
    stack: ExitStack, wanted: Mapping[str, Start], progress: Console
) -> tuple[list[LoadTarget], dict[str, str]]:
    """Contenders that start here, suspended, and the reasons why the others do not."""
    started: list[LoadTarget] = []
    missing: dict[str, str] = {}
    for name, contender in wanted.items():
        progress.print(f"starting {name}", style="dim")
        if target := start_suspended(stack, name, contender, missing):
            started.append(target)
    return started, missing


def play(
    engine: LoadTarget,
    started: Sequence[LoadTarget],
    load: PathLoad,
    rounds: int,
    end_s: float,
    progress: Console,
) -> tuple[Samples, dict[str, str]]:
    """Samples of as many rounds as there is time for, and the contenders that were dropped.

    The rounds end if the engine fails, as nothing can be measured without it.

    Raises:
        Unavailable: the engine failed before a round was complete.
    """
    every = {target.name: target for target in (engine, *started)}
    played: Rounds[LoadTarget, Sample] = Rounds(every, progress)

    def measured(target: LoadTarget, number: int) -> Sample:
        own_load = load if number else WARM_UP
        with nullcontext() if target is engine else resumed(target):
            try:
                return measure(target, own_load, engine.engine_processes)
            except ProcessesChanged as error:
                progress.print(f"{target.name} once more: {error}", style="red")
                return measure(target, own_load, engine.engine_processes)

    samples = played.run(measured, rounds, end_s, required=[engine.name])
    if not samples[engine.name]:
        raise Unavailable(played.dropped[engine.name])
    return samples, played.dropped


class ProcessesChanged(Unavailable):
    """A process ended during a measurement; another try may succeed."""


def measure(target: LoadTarget, load: PathLoad, engine: Processes) -> Sample:
    """Measure a target under saturation, and then with a single client.

    `engine` are the processes of the engine behind it, if it has none of its own.

    Raises:
        ProcessesChanged: some of its processes ended meanwhile.
        Unavailable: it did not answer everything in full.
    """
    path, beside = CpuTime(target.path_processes), CpuTime(target.other_processes)
    own = CpuTime(target.engine_processes if target.engine_processes() else engine)
    saturated = _saturate(target, load, clients=load.clients, max_requests=UNLIMITED)
    path_s, beside_s, engine_s = path.spent_s, beside.spent_s, own.spent_s
    if ended := [*path.ended, *own.ended]:
        raise ProcessesChanged(f"processes {ended} ended meanwhile; their CPU time is lost")
    if not saturated.requests:
        raise Unavailable(f"no request was answered within {load.seconds:g} s")
    first_token = PathLoad(chunks=1, seconds=load.seconds)
    single = _saturate(target, first_token, clients=1, max_requests=SINGLE_REQUESTS)
    ttft_ms = sorted(1000 * ttft_s for ttft_s in single.ttft_s)
    return Sample(
        requests_per_s=saturated.requests / saturated.elapsed_s,
        chunks_per_s=saturated.events / saturated.elapsed_s,
        cpu_s_per_1000=1000 * path_s / saturated.requests,
        engine_cpu_s_per_1000=1000 * engine_s / saturated.requests,
        client_cpu_s_per_1000=1000 * saturated.cpu_s / saturated.requests,
        beside_cpus=beside_s / saturated.elapsed_s,
        ttft_p50_ms=percentile(ttft_ms, 0.5),
        ttft_p99_ms=percentile(ttft_ms, 0.99),
    )


def _saturate(
    target: LoadTarget, load: PathLoad, *, clients: int, max_requests: int
) -> SaturationResult:
    job = SaturationJob(
        model=MODEL,
        clients=clients,
        chunks=load.chunks,
        max_s=load.seconds,
        max_requests=max_requests,
    )
    try:
        return saturate(HOST, target.port, job)
    except WorkerFailed as error:
        raise Unavailable(str(error)) from None
