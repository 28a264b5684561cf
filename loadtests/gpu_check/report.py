"""The report of a check, in Markdown, to attach to an issue."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from loadtests.gpu_check.machine import GpuMachine


class Outcome(StrEnum):
    """How a step ended."""

    PASSED = "passed"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CheckedStep:
    """What one step was to show, and what it did."""

    name: str
    expected: str
    outcome: Outcome
    found: str
    seconds: float

    @classmethod
    def since(cls, began_s: float, name: str, expected: str, outcome: Outcome, found: str) -> Self:
        """The result of a step that began then, by a monotonic clock."""
        return cls(name, expected, outcome, found, time.monotonic() - began_s)


def render(machine: GpuMachine, model: str, results: Sequence[CheckedStep]) -> str:
    """The whole report."""
    counts = Counter(result.outcome for result in results)
    summary = ", ".join(f"{counts[outcome]} {outcome.lower()}" for outcome in Outcome)
    rows = [
        f"| {r.name} | {_cell(r.expected)} | {r.outcome} | {r.seconds:.1f} | {_cell(r.found)} |"
        for r in results
    ]
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    topology = ["", "```", machine.topology, "```"] if machine.topology else []
    return "\n".join(
        [
            "# GPU check of ray-llm-gateway",
            "",
            f"{summary}. Model: `{model}`.",
            "",
            "| step | expected | result | seconds | found |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "## Machine",
            "",
            *(f"- GPU: {gpu}" for gpu in machine.gpus or ["none"]),
            f"- {machine.system}",
            f"- {packages}",
            *topology,
            "",
        ]
    )


def _cell(text: str) -> str:
    """Text that fits into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")[:500]
