"""Answers `Questions` from standard input with `ClusterFacts`: `python -m deployments.doctor`."""

import contextlib
import logging
import sys

import msgspec

from deployments.doctor.gathering import gather_from_cluster, gather_here
from gateway.doctor.questions import Questions


def main() -> None:
    """Print the facts as the last line."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    questions = msgspec.json.decode(sys.stdin.buffer.read(), type=Questions)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            facts = gather_from_cluster(questions)
            if facts is None:
                facts = gather_here(questions)
    except (OSError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"the cluster at {questions.address} cannot be asked: {error}\n")
        raise SystemExit(1) from None
    sys.stdout.write(f"\n{msgspec.json.encode(facts).decode()}\n")


if __name__ == "__main__":
    main()
