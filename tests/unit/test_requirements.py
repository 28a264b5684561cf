"""`make setup` installs two lists together, and pip refuses two versions of one package."""

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
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
