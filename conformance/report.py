"""Results against what is known to fail, and the table of them in `docs/conformance.md`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from conformance.checks import CheckResult
from conformance.requests_table import table_cases
from gateway.reference.markdown import table

HERE = Path(__file__).resolve().parent
KNOWN = HERE / "known_failures.yaml"
PAGE = HERE.parent / "docs" / "conformance.md"
MARKED = re.compile(r"<!-- conformance: (\w+) -->\n.*?<!-- end of conformance -->", re.DOTALL)


class KnownFailure(BaseModel):
    """Checks that fail, and why that is right, or what it waits for.

    `passed`: for a check that stands for a file of tests, how many of them pass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checks: list[str]
    why: str
    passed: dict[str, int] = {}


KnownFailures = Mapping[str, Sequence[KnownFailure]]


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """What a suite has found."""

    name: str
    title: str
    results: Sequence[CheckResult]

    @property
    def passed(self) -> int:
        """How many checks passed."""
        return sum(result.passed for result in self.results)

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return sum(result.failed for result in self.results)


def known_failures() -> KnownFailures:
    """The known failures of each suite; those of the table stand in it."""
    adapter = TypeAdapter(dict[str, list[KnownFailure]])
    known = adapter.validate_python(yaml.safe_load(KNOWN.read_text()) or {})
    whys: dict[str, list[str]] = {}
    for case in table_cases():
        if case.known:
            whys.setdefault(case.known, []).append(case.name)
    of_table = [KnownFailure(checks=checks, why=why) for why, checks in whys.items()]
    return {"table": of_table, **known}


def surprises(report: SuiteReport, known: KnownFailures) -> Iterator[str]:
    """What has changed: checks that fail unexpectedly, or that pass where a failure is known."""
    failures = known.get(report.name, [])
    reasons = {check: failure for failure in failures for check in failure.checks}
    ran = {result.name: result for result in report.results}
    for name, result in ran.items():
        expected = reasons.get(name)
        if expected is None:
            if result.failed:
                yield f"{report.name}: {name} fails: {result.why}"
        elif not result.failed:
            yield f"{report.name}: {name} passes now: take it from {KNOWN.name}"
        elif name in expected.passed and result.passed != expected.passed[name]:
            yield (
                f"{report.name}: of {name}, {result.passed} pass, not {expected.passed[name]}: "
                f"{result.why}"
            )
    for name in reasons.keys() - ran.keys():
        yield f"{report.name}: {KNOWN.name} names {name}, which there is not"


def filled_page(page: str, reports: Sequence[SuiteReport], known: KnownFailures) -> str:
    """The page with its generated parts as they are now."""
    parts = {"results": _results(reports), "files": _files(reports), "failures": _failures(known)}

    def fill(mark: re.Match[str]) -> str:
        name = mark[1]
        return f"<!-- conformance: {name} -->\n\n{parts[name]}\n\n<!-- end of conformance -->"

    return MARKED.sub(fill, page)


def _results(reports: Sequence[SuiteReport]) -> str:
    rows = [(report.title, str(report.passed), str(report.failed)) for report in reports]
    return table(["suite", "pass", "fail"], rows)


def _files(reports: Sequence[SuiteReport]) -> str:
    rows = [
        (f"`{result.name}`", str(result.passed), str(result.failed))
        for report in reports
        if report.name == "openai-tests"
        for result in report.results
    ]
    return table(["file of OpenAI's tests", "pass", "fail"], rows)


def _failures(known: KnownFailures) -> str:
    rows = [
        (suite, ", ".join(failure.checks), failure.why)
        for suite, failures in known.items()
        for failure in failures
    ]
    return table(["suite", "checks", "why they fail"], rows)
