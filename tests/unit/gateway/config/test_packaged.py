"""Deployment files that are installed with the package."""

from pathlib import Path

import pytest

from gateway.child_process import ROOT
from gateway.config.loader import load_config
from gateway.config.packaged import CONFIGS, deployment_path, packaged_names
from gateway.errors.startup import ConfigError


def test_all_deployment_files_are_packaged() -> None:
    """Those of the repository."""
    assert packaged_names() == sorted(file.stem for file in (ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("name", ["dev", "sim", "teams", "adapters"])
def test_a_packaged_file_is_valid_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its paths lead to the packaged model and projects, whatever the working directory."""
    monkeypatch.chdir(tmp_path)
    file = deployment_path(Path(name))

    loaded = load_config(file)

    assert file.parent == CONFIGS
    assert not [each for each in loaded.warnings if "no such file" in each]


def test_a_file_goes_before_a_packaged_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is here is meant."""
    monkeypatch.chdir(tmp_path)
    Path("dev").touch()

    assert deployment_path(Path("dev")) == Path("dev")


def test_a_directory_does_not_hide_a_packaged_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory cannot be a deployment file."""
    monkeypatch.chdir(tmp_path)
    Path("dev").mkdir()

    assert deployment_path(Path("dev")) == CONFIGS / "dev.yaml"


def test_a_path_that_cannot_be_looked_at_is_left_to_its_reader() -> None:
    """Who says why it cannot be read, on one line."""
    with pytest.raises(ConfigError, match="File name too long"):
        load_config(deployment_path(Path("x" * 5000)))


def test_an_unknown_file_is_answered_with_the_packaged_names(tmp_path: Path) -> None:
    """On one line."""
    with pytest.raises(ConfigError, match=r"no such file here.*\(these are .*dev.*teams\)"):
        deployment_path(tmp_path / "missing.yaml")
