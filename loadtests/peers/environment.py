"""Virtual environments of peers, separate from ours and from each other."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.launch import PROJECT_ROOT, Unavailable

PEERS = PROJECT_ROOT / ".venv-peers"
INSTALL_TIMEOUT_S = 600
PIP_INSTALL = ["-m", "pip", "--disable-pip-version-check", "--quiet", "install"]


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment for one package, installed on first use."""

    package: str
    version: str
    extra: str = ""
    folder: Path = PEERS

    def tool(self, name: str) -> Path:
        """A program of the package.

        Raises:
            Unavailable: it cannot be installed here.
        """
        home = self.folder / self.package
        ready = home / f"ready-{self.version}"
        if not ready.exists():
            self._install(home)
            ready.touch()
        return home / "bin" / name

    @property
    def described(self) -> str:
        """Package and version."""
        return f"{self.package} {self.version}"

    @property
    def _requirement(self) -> str:
        return f"{self.package}{self.extra}=={self.version}"

    def _install(self, home: Path) -> None:
        pip = [str(home / "bin" / "python"), *PIP_INSTALL]
        for command in ([sys.executable, "-m", "venv", str(home)], [*pip, self._requirement]):
            run_installer(command, self._requirement)


@dataclass(frozen=True, slots=True)
class ExtraPackage:
    """A package that a peer needs in addition to our own environment, in a folder of its own."""

    peer: str
    package: str
    version: str
    folder: Path = PEERS

    def path(self) -> Path:
        """The folder to put on the peer's `PYTHONPATH`.

        Raises:
            Unavailable: it cannot be installed here.
        """
        home = self.folder / self.peer
        ready = home / f"ready-{self.package}-{self.version}"
        if not ready.exists():
            requirement = f"{self.package}=={self.version}"
            where = ["--no-deps", "--target", str(home)]
            run_installer([sys.executable, *PIP_INSTALL, *where, requirement], requirement)
            ready.touch()
        return home


def run_installer(command: Sequence[str], requirement: str) -> None:
    """Run an installer.

    Raises:
        Unavailable: it failed or took too long.
    """
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise Unavailable(f"{requirement}: {error}") from None
    if done.returncode:
        output = done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}"
        raise Unavailable(f"{requirement}: {output.splitlines()[-1]}")
