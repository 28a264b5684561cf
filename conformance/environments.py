"""Environments of their own for the clients: Python's packages and Node's, in pinned versions."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDER = ROOT / ".venv-conformance"
NODE_MAJOR = 20


class CannotInstall(Exception):
    """An environment cannot be made; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """A virtual environment made of `requirements/NAME.txt`, which is complete."""

    name: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return FOLDER / self.name / "bin" / "python"

    def install(self) -> None:
        """Make it, unless it has been made of these requirements.

        Raises:
            CannotInstall: Python's `venv` or pip has failed, and has said why.
        """
        requirements = HERE / "requirements" / f"{self.name}.txt"
        done = FOLDER / self.name / "installed.txt"
        if done.exists() and done.read_text() == requirements.read_text():
            return
        if not self.python.exists():
            _run([sys.executable, "-m", "venv", str(FOLDER / self.name)])
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        _run([*pip, "install", "--no-deps", "-r", str(requirements)])
        shutil.copyfile(requirements, done)

    def version(self, package: str) -> str:
        """The pinned version of a package."""
        lines = (HERE / "requirements" / f"{self.name}.txt").read_text().splitlines()
        pins = dict(line.split("==") for line in lines if "==" in line)
        return pins[package]


@dataclass(frozen=True, slots=True)
class NodeEnvironment:
    """`node/package.json`, installed beside the suites in JavaScript."""

    @property
    def folder(self) -> Path:
        """Where the packages are, and a copy of the suites, which must lie beside them."""
        return FOLDER / "node"

    @property
    def commands(self) -> Path:
        """The commands that packages bring."""
        return self.folder / "node_modules" / ".bin"

    def install(self) -> None:
        """Copy the suites, and install the packages unless they are those of the lock file.

        Raises:
            CannotInstall: there is no Node, or an old one, or npm has failed.
        """
        self._require_node()
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (HERE / "node").iterdir():
            if path.is_file():  # an editor may have installed the packages there, too
                shutil.copyfile(path, self.folder / path.name)
        lock, done = self.folder / "package-lock.json", self.folder / "installed.json"
        if done.exists() and done.read_text() == lock.read_text():
            return
        _run(["npm", "ci", "--no-audit", "--no-fund"], self.folder)
        shutil.copyfile(lock, done)

    def version(self, package: str) -> str:
        """The pinned version of a package."""
        document = json.loads((HERE / "node" / "package.json").read_text())
        version: str = document["dependencies"][package]
        return version

    @staticmethod
    def _require_node() -> None:
        if shutil.which("node") is None or shutil.which("npm") is None:
            raise CannotInstall(f"node {NODE_MAJOR} or later and npm are not installed")
        told = subprocess.check_output(["node", "--version"], text=True)
        if int(told.strip().removeprefix("v").split(".")[0]) < NODE_MAJOR:
            raise CannotInstall(f"node {NODE_MAJOR} or later is needed, not {told.strip()}")


def _run(command: Sequence[str], folder: Path = ROOT) -> None:
    """Run a command, whose output its user sees.

    Raises:
        CannotInstall: it has failed.
    """
    status = subprocess.run(command, cwd=folder, check=False).returncode
    if status:
        raise CannotInstall(f"`{' '.join(command)}` has failed with status {status}")
