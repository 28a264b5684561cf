"""`make setup` installs two lists together, and pip refuses two versions of one package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
LISTS = ("cpu", "dev", "gpu", "tools")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}(?= |$)", re.MULTILINE)
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", re.MULTILINE)


def pins_of(name: str) -> dict[str, str]:
    """The version of each package, by its normalized name (PEP 503)."""
    pins = PIN.findall((REQUIREMENTS / name).read_text(encoding="utf-8"))
    versions = {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in pins}
    assert len(versions) == len(pins), f"{name} names a package twice"
    return versions


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_lists_installed_together_agree(engine: str) -> None:
    """One version each, whatever list a package stands in."""
    serving, checking = pins_of(f"{engine}.txt"), pins_of("dev.txt")
    common = serving.keys() & checking.keys()
    assert {name for name in common if serving[name] != checking[name]} == set()


@pytest.mark.parametrize("name", LISTS)
def test_a_lock_has_the_lines_of_its_list(name: str) -> None:
    """`make lock` has run since the list was changed, and every package has a hash."""
    listed = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    lock = (REQUIREMENTS / f"{name}.lock").read_text(encoding="utf-8").replace(" \\\n", "")
    wanted = [line for line in listed if line and not line.startswith("#")]
    locked = [line for line in lock.splitlines() if not line.startswith("#")]
    assert [line.split("    --hash")[0] for line in locked] == wanted
    assert all(HASH.search(line) for line in locked)
    assert all(len(HASH.findall(line)) == line.count("--hash=") for line in locked)


def test_every_list_is_locked() -> None:
    """No list is installed without hashes."""
    files = {path.name for path in REQUIREMENTS.iterdir() if path.suffix in {".txt", ".lock"}}
    assert files == {f"{name}.{kind}" for name in LISTS for kind in ("txt", "lock")}


def test_an_image_installs_what_it_lacks(tmp_path: Path) -> None:
    """Packages that are not there, with their hashes; and those whose version is wanted exactly."""
    lock = tmp_path / "some.lock"
    lock.write_text(
        "# A comment.\n"
        "no-such-package==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "pytest==0.1 \\\n    --hash=sha256:cc\n"
        "ruff==0.1 \\\n    --hash=sha256:dd\n"
    )
    command = [sys.executable, str(REQUIREMENTS / "missing.py"), str(lock), "ruff"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == (
        "no-such-package==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "ruff==0.1 \\\n    --hash=sha256:dd\n"
    )
