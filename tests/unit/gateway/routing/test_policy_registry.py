"""Tests that a routing policy is added by writing one file."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import gateway
from gateway.routing.policy_registry import PACKAGE, make_policy

ZONE_FIRST = '''
"""Policy that prefers the first candidate."""

from gateway.routing.policy import PolicyChoice


class ZoneFirst:
    """Chooses the first candidate."""

    name = "zone-first"

    def __init__(self, rng):
        pass

    def choose(self, request, candidates, estimates):
        """Choose the first candidate."""
        return PolicyChoice(0, [0.0] * len(candidates))
'''
DEPLOYMENT = """\
applications:
  - name: gateway
    import_path: deployments.app:gateway
    route_prefix: /
  - name: m
    import_path: deployments.app:model
    route_prefix: null
    args:
      name: m
      engine: sim
      routing: {policy: POLICY}
http_options: {host: 127.0.0.1}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the gateway with one more file in the folder of its policies."""
    folder = tmp_path_factory.mktemp("project")
    source = Path(gateway.__file__).parent
    shutil.copytree(source, folder / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "gateway" / "routing" / "policies" / "zone_first.py").write_text(ZONE_FIRST)
    return folder


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the copy's command line."""
    code = "import sys; from gateway.cli import app; app()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_new_policy_is_simulated_by_its_name(project: Path) -> None:
    """`gateway simulate` runs it when asked, and compares it with the others by default."""
    found = run(project, "simulate", "none", "--limit", "20", "--policy", "zone-first")
    every = run(project, "simulate", "none", "--limit", "20")

    assert found.returncode == 0, found.stderr
    assert "zone-first" in found.stdout
    assert {"zone-first", "marginal"} <= set(every.stdout.split())


def test_a_new_policy_is_valid_in_a_configuration(project: Path) -> None:
    """`gateway check` accepts it, and suggests it with file and line where it is misspelled."""
    good, bad = project / "good.yaml", project / "bad.yaml"
    good.write_text(DEPLOYMENT.replace("POLICY", "zone-first"))
    bad.write_text(DEPLOYMENT.replace("POLICY", "zone-fist"))

    accepted, rejected = run(project, "check", str(good)), run(project, "check", str(bad))

    assert accepted.returncode == 0, accepted.stderr
    assert rejected.returncode == 1
    assert f"{bad}:11: " in rejected.stderr
    assert 'routing.policy: found "zone-fist", did you mean `zone-first`?' in rejected.stderr


def test_a_new_policy_is_documented(project: Path) -> None:
    """The reference of configurations lists it among the values of `policy`."""
    page = run(project, "docs").stdout
    (row,) = [line for line in page.splitlines() if line.startswith("| `policy` |")]
    assert "`marginal` or " in row
    assert "`zone-first`" in row


def test_a_module_without_a_class_of_its_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the module and the missing class name."""
    module = ModuleType(f"{PACKAGE}.nameless")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(LookupError, match=r"policies\.nameless defines 0 classes .* `nameless`"):
        make_policy("nameless", random.Random(1))  # noqa: S311 - breaks ties only
