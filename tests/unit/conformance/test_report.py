"""Results against what is known to fail."""

import pytest

from conformance.checks import CheckResult
from conformance.report import KnownFailure, SuiteReport, filled_page, surprises

KNOWN = {"s": [KnownFailure(checks=["a"], why="w", passed={"a": 2})]}


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ([CheckResult("a", 2, 1)], []),
        ([CheckResult("a", 2, 1), CheckResult("b", 1, 0)], []),
        ([CheckResult("a", 2, 1), CheckResult("b", 0, 1, "x")], ["s: b fails: x"]),
        ([CheckResult("a", 3, 0)], ["s: a passes now: take it from known_failures.yaml"]),
        ([CheckResult("a", 1, 2, "x")], ["s: of a, 1 pass, not 2: x"]),
        ([], ["s: known_failures.yaml names a, which there is not"]),
    ],
)
def test_only_what_has_changed_is_told(results: list[CheckResult], told: list[str]) -> None:
    """Known failures are no news; new ones are, and so are known ones that pass."""
    assert list(surprises(SuiteReport("s", "S", results), KNOWN)) == told


def test_the_page_is_filled_between_its_marks() -> None:
    """What stands around them stays."""
    page = "head\n<!-- conformance: results -->\nold\n<!-- end of conformance -->\ntail\n"

    filled = filled_page(page, [SuiteReport("s", "S", [CheckResult("a", 2, 1)])], KNOWN)

    assert filled.startswith("head\n")
    assert "| S | 2 | 1 |" in filled
    assert "old" not in filled
    assert filled.endswith("tail\n")
