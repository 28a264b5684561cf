"""`python -m conformance`: run the clients of others against a gateway, and compare with before.

Results go to `build/conformance/`. The exit status is 1 if a check fails that is not known to fail,
or passes that is.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from conformance.checks import CheckResult, CheckTarget
from conformance.environments import ROOT, CannotInstall
from conformance.report import PAGE, SuiteReport, filled_page, known_failures, surprises
from conformance.suites import AGENTS, SUITES, Suite
from tests.gateway_process import Document, GatewayProcess

CONFIG = ROOT / "configs" / "dev.yaml"
DIRECTORY = ROOT / "build" / "conformance"
START_TIMEOUT_S = 900
"""Time for the engines to start, also on a machine that does other things."""


def main() -> None:
    """Run the suites that are asked for."""
    given = _arguments()
    # Agents know what to do with this repository's model only: elsewhere they must be asked for.
    usual = [suite.name for suite in SUITES if not (given.url and suite.name == AGENTS)]
    suites = [suite for suite in SUITES if suite.name in (given.suite or usual)]
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    try:
        for suite in suites:
            suite.install()
    except CannotInstall as error:
        sys.exit(f"conformance: {error}")
    with _target(given.url, given.spec) as target:
        _run(suites, target)
    sys.exit(_report(suites, is_page_updated=given.update))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument(
        "--url", help="a gateway that runs, with the models `demo` and `demo-embed`"
    )
    parser.add_argument("--spec", help="OpenAI's specification as JSON, possibly as .gz")
    parser.add_argument("--suite", action="append", choices=[suite.name for suite in SUITES])
    parser.add_argument("--update", action="store_true", help=f"fill the results into {PAGE.name}")
    return parser.parse_args()


@contextmanager
def _target(url: str | None, spec: str | None) -> Iterator[CheckTarget]:
    """The gateway that is asked: the one at `url`, or one of this repository's."""
    if url:
        yield CheckTarget(url.rstrip("/"), spec=spec)
        return
    document: Document = yaml.safe_load(CONFIG.read_text())
    with GatewayProcess(document, DIRECTORY, start_timeout_s=START_TIMEOUT_S) as gateway:
        yield CheckTarget(gateway.url, spec=spec)


def _run(suites: Sequence[Suite], target: CheckTarget) -> None:
    for suite in suites:
        results = suite.run(target, DIRECTORY)
        report = SuiteReport(suite.name, suite.title, results)
        sys.stdout.write(f"{suite.title}: {report.passed} pass, {report.failed} fail\n")
        sys.stdout.flush()
        told = [result.to_json() for result in results]
        _file(suite).write_text(json.dumps(told, indent=1, ensure_ascii=False))


def _report(suites: Sequence[Suite], *, is_page_updated: bool) -> int:
    """Say what has changed, and fill the page with the newest results of all suites."""
    known = known_failures()
    reports = [_read(suite) for suite in SUITES if _file(suite).exists()]
    names = {suite.name for suite in suites}
    changed = [s for r in reports if r.name in names for s in surprises(r, known)]
    sys.stdout.writelines(f"{surprise}\n" for surprise in changed)
    if is_page_updated:
        PAGE.write_text(filled_page(PAGE.read_text(), reports, known))
    return 1 if changed else 0


def _read(suite: Suite) -> SuiteReport:
    told = json.loads(_file(suite).read_text())
    return SuiteReport(suite.name, suite.title, [CheckResult.from_json(each) for each in told])


def _file(suite: Suite) -> Path:
    return DIRECTORY / f"{suite.name}.results.json"


if __name__ == "__main__":
    main()
