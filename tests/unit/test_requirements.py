"""The lists that `make setup` installs together must name one version of each package: pip refuses two."""

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^\s;]+)", re.MULTILINE)


def pins_of(name: str) -> dict[str, str]:
    """The version of each package, by its normalized name (PEP 503)."""
    text = (REQUIREMENTS / name).read_text(encoding="utf-8")
    found = [
        (re.sub(r"[-_.]+", "-", pin["name"]).lower(), pin["version"]) for pin in PIN.finditer(text)
    ]
    assert len(dict(found)) == len(found), f"{name} names a package twice"
    return dict(found)


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_lists_installed_together_agree(engine: str) -> None:
    """One version each, whatever list a package stands in."""
    serving, checking = pins_of(f"{engine}.txt"), pins_of("dev.txt")
    assert {
        name for name in serving.keys() & checking.keys() if serving[name] != checking[name]
    } == set()
