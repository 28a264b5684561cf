"""Prints the requirements of a lock that this Python environment lacks, with their hashes.

    python missing.py LOCK [NAME...]

Installed packages may have any version, except those named: they are missing unless they have that
of the lock.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^\s;]+)")


def missing(lock: str, exact: set[str]) -> Iterator[str]:
    """The requirements of a lock's text that are not installed."""
    for requirement in re.split(r"(?m)^(?=[A-Za-z0-9])", lock):
        pin = REQUIREMENT.match(requirement)
        if pin is None:
            continue
        found = installed(pin["name"])
        if found is None or (pin["name"] in exact and found != pin["version"]):
            yield requirement


def installed(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    sys.stdout.writelines(missing(text, set(sys.argv[2:])))
