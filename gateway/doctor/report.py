"""Report of findings: a line each, the remedy below what is not well; or JSON."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from gateway.doctor.findings import Finding, Level

WIDTH = 12
"""Columns of the name of a check."""


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """The findings as text."""
    for each in findings:
        yield f"{each.level.value:<8} {each.check:<{WIDTH}} {each.message}"
        if each.remedy:
            yield f"{'':<8} {'':<{WIDTH}} -> {each.remedy}"
    yield summary(findings)


def summary(findings: Sequence[Finding]) -> str:
    """How many findings there are of each level."""
    counts = Counter(each.level for each in findings)
    plural = {Level.WARNING: "warnings", Level.FAILURE: "failures"}
    parts = [f"{counts[Level.OK]} ok"]
    parts += [f"{counts[level]} {plural[level]}" for level in plural]
    return ", ".join(parts)


def as_json(findings: Sequence[Finding]) -> str:
    """The findings as JSON."""
    rows = msgspec.to_builtins(findings)
    return json.dumps({"healthy": not is_failure(findings), "findings": rows}, indent=2)


def is_failure(findings: Sequence[Finding]) -> bool:
    """Whether something does not work."""
    return any(each.level is Level.FAILURE for each in findings)
