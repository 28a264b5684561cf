"""Writes `NAME.lock` beside each list of requirements: the same lines, with hashes of their files.

`make lock` runs it after a list has changed; `make setup` installs the locks, and so checks every
file by its hash. A hash is that of a wheel for Linux on x86-64 that one of the Pythons below may
choose, or of the source where there is no such wheel. uv asks the index that it is configured for:
which one does not matter, because a file has the same hash wherever it comes from.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
LISTS = ("cpu", "dev", "gpu", "tools")
PYTHONS = ("3.11.5", "3.12", "3.13")
PLATFORM = "x86_64-manylinux_2_40"
"""The newest C library that a wheel may ask for; wheels for older ones count as well."""
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==")
HEAD = "# Written by `make lock` from {name}.txt: edit that list, not this file.\n"

Package = dict[str, object]


def main() -> None:
    """Lock every list."""
    uv = Path(sys.executable).with_name("uv")
    for name in LISTS:
        source = FOLDER / f"{name}.txt"
        hashes: dict[str, set[str]] = {}
        for python in PYTHONS:
            for package in packages(uv, source, python):
                hashes.setdefault(str(package["name"]), set()).update(hashes_of(package))
        lines = requirement_lines(source.read_text(encoding="utf-8"))
        text = "".join(locked(line, hashes) for line in lines)
        (FOLDER / f"{name}.lock").write_text(HEAD.format(name=name) + text, encoding="utf-8")


def packages(uv: Path, source: Path, python: str) -> list[Package]:
    """What a list holds, with the files that this Python may choose.

    Raises:
        SystemExit: uv cannot find one of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pylock.toml"
        options = ("--no-deps", "--format", "pylock.toml", "--quiet", "--output-file", str(output))
        target = ("--python-version", python, "--python-platform", PLATFORM)
        command = [str(uv), "pip", "compile", *options, *target, str(source)]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{source.name}: uv finds no files for Python {python}")
        found: list[Package] = tomllib.loads(output.read_text(encoding="utf-8"))["packages"]
        return found


def hashes_of(package: Package) -> Iterator[str]:
    """Hashes of a package's wheels, or of its source if it has none."""
    wheels = package.get("wheels") or [package["sdist"]]
    assert isinstance(wheels, list)  # noqa: S101 - tells mypy what TOML's reader cannot
    for file in wheels:
        yield file["hashes"]["sha256"]


def requirement_lines(text: str) -> Iterable[str]:
    """The lines of a list that name a package."""
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def locked(line: str, hashes: dict[str, set[str]]) -> str:
    """A line with the hashes of its package."""
    requirement = REQUIREMENT.match(line)
    if requirement is None:
        raise SystemExit(f"{line}: a list names packages as NAME==VERSION")
    name = re.sub(r"[-_.]+", "-", requirement["name"]).lower()
    return (
        " \\\n    ".join([line, *(f"--hash=sha256:{each}" for each in sorted(hashes[name]))]) + "\n"
    )


if __name__ == "__main__":
    main()
