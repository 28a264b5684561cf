"""The table of requests that `make test` goes through, with the SDKs' types of this environment."""

from collections.abc import Callable

from conformance.checks import Check, CheckTarget
from conformance.requests_table import TableCase, table_cases


def _check(case: TableCase) -> Callable[[CheckTarget], None]:
    def run(target: CheckTarget) -> None:
        found = case.deviations(target.url)
        assert not found, "; ".join(found)

    return run


CHECKS: dict[str, Check] = {case.name: _check(case) for case in table_cases()}
