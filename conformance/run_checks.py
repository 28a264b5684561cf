"""One suite: `python -m conformance.run_checks MODULE --url URL --output FILE`."""

import argparse
import importlib
import json
import sys
from pathlib import Path

from conformance.checks import CheckTarget, module_checks, run_checks, time_limit_s


def main() -> None:
    """Run a module's checks and write their results as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--url", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--embedding-model", default="demo-embed")
    parser.add_argument("--spec")
    given = parser.parse_args()
    target = CheckTarget(given.url, given.model, given.embedding_model, given.spec)
    module = importlib.import_module(given.module)
    results = []
    for result in run_checks(module_checks(module).items(), target, time_limit_s(module)):
        results.append(result.to_json())
        mark = "." if not result.failed else "F"
        sys.stderr.write(mark)
    sys.stderr.write("\n")
    given.output.write_text(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
