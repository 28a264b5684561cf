"""The wheel: it holds what `gateway serve` needs, and works without the repository."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from gateway.child_process import ROOT

PACKAGED = "gateway/packaged/"
DEMO = ("config.json", "model.safetensors", "tokenizer.json", "pirate/adapter_config.json")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from the files that git knows."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "dist"))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    subprocess.run(
        ["tar", "--create", "--null", "--files-from=-", "--file", str(source / "all.tar")],  # noqa: S607
        cwd=ROOT,
        input=listed.stdout,
        check=True,
    )
    subprocess.run(["tar", "--extract", "--file", "all.tar"], cwd=source, check=True)  # noqa: S607
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, str(source), "--wheel-dir", str(target)], check=True)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_the_demo_model_and_all_configs(wheel: Path) -> None:
    """What the repository's `gateway/packaged` links to, without scripts and manifests."""
    with zipfile.ZipFile(wheel) as opened:
        names = {name.removeprefix(PACKAGED) for name in opened.namelist() if PACKAGED in name}

    configs = {f"configs/{file.name}" for file in (ROOT / "configs").glob("*.yaml")}
    needed = {"configs/projects/teams.yaml", "configs/grafana/gateway.json"}
    assert names >= configs | needed | {f"models/demo/{name}" for name in DEMO}
    assert not [name for name in names if name.endswith(".py") or "kubernetes" in name]


def test_an_installed_gateway_checks_the_demo_from_any_directory(
    wheel: Path, tmp_path: Path
) -> None:
    """A directory named like our packages does not matter, and nothing is written beside code."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    (packages,) = home.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(packages)
    ours = {file for file in packages.rglob("*") if "__pycache__" not in file.parts}
    others = Path(pytest.__file__).parents[1]
    (packages / "others.pth").write_text(f"{others}\n")
    (tmp_path / "deployments").mkdir()

    said = subprocess.run(
        [str(home / "bin" / "python"), "-m", "gateway.cli", "check", "dev"],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == 0, said.stderr
    assert f"{packages}/{PACKAGED}configs/dev.yaml: OK" in said.stdout
    found = {file for file in packages.rglob("*") if "__pycache__" not in file.parts}
    assert found - ours == {packages / "others.pth"}
