"""Modules that are run in processes of their own import our code, whatever the user has."""

import os
import subprocess
from pathlib import Path

import pytest

from gateway.child_process import ROOT, module_command, module_environment, shadowing


@pytest.mark.parametrize("name", ["gateway", "deployments"])
def test_a_package_in_the_working_directory_is_not_imported(tmp_path: Path, name: str) -> None:
    """The module that runs is ours, although the user's has its name."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')")

    ended = subprocess.run(
        module_command("gateway.cli", "--help"),
        env=module_environment(os.environ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_repository_goes_before_what_is_installed() -> None:
    """And before whatever else is on the path."""
    environment = module_environment({"PYTHONPATH": "/mine"}, is_source_tree=True)

    assert environment["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/mine"]


def test_what_is_installed_does_not_go_before_the_standard_library() -> None:
    """A directory of packages on `PYTHONPATH` would."""
    site = Path("/usr/lib/python3/site-packages")

    found = module_environment({"HOME": "/h"}, root=site, is_source_tree=False)

    assert found == {"HOME": "/h", "PYTHONSAFEPATH": "1"}


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ("deployments/__init__.py", True),
        ("gateway/__init__.py", True),
        ("deployments.py", True),
        ("deployments/notes.txt", False),
        ("other/__init__.py", False),
    ],
)
def test_only_a_package_or_module_shadows_ours(tmp_path: Path, made: str, *, found: bool) -> None:
    """A directory with the name of a package does not."""
    file = tmp_path / made
    file.parent.mkdir(exist_ok=True)
    file.touch()

    assert shadowing(tmp_path) == (file if found else None)


def test_the_repository_does_not_shadow_itself() -> None:
    """`make serve` runs in it."""
    assert shadowing(ROOT) is None
