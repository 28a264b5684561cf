"""What `loadtests.overhead` compares, each started as its own processes, stopped for certain."""

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import yaml

from deployments import processes
from deployments.local import NOTES

PROJECT_ROOT = Path(__file__).resolve().parent.parent
PEERS = PROJECT_ROOT / ".venv-peers"
VLLM_ROUTER = "vllm-router==0.1.17"

HOST = "127.0.0.1"
MODEL = "sim"
ROUTE = "/v1/chat/completions"
START_TIMEOUT_S = 240
STOP_TIMEOUT_S = 60

ENGINE_TITLE = ":Engine"
"""How Ray names the process of an engine replica: `ray::ServeReplica:<application>:Engine`."""
PATH_TITLES = ("haproxy", "ServeReplica:gateway:Router")
"""The processes of a deployed gateway that carry requests."""


class Unavailable(Exception):
    """A target cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers on a port, and the processes whose CPU time that costs."""

    name: str
    port: int
    path_processes: Callable[[], Sequence[psutil.Process]]
    """Those that carry requests, the engine excepted."""
    other_processes: Callable[[], Sequence[psutil.Process]] = tuple
    """Those that run beside them, whatever the load: the rest of a Ray cluster."""


@contextmanager
def engine() -> Iterator[Target]:
    """The instant simulator, called directly."""
    port = processes.free_port()
    command = ["deployments.engines.sim", "--model", MODEL, "--instant", "--port", str(port)]
    with _running([sys.executable, "-m", *command]) as process:
        _await_answer(port, process)
        yield Target("direct", port, tuple)


@contextmanager
def router(engine_port: int) -> Iterator[Target]:
    """The gateway's HTTP application alone: no Ray Serve, no HAProxy."""
    port = processes.free_port()
    command = [sys.executable, "-m", "loadtests.router", str(port), str(engine_port)]
    with _running(command) as process:
        _await_answer(port, process)
        yield Target("router", port, lambda: [process])


@contextmanager
def gateway(url: str | None) -> Iterator[Target]:
    """The gateway as it is deployed: HAProxy, Ray Serve, and an engine replica of its own.

    That engine runs the same simulator, but inside a Ray Serve replica, whose key only routers
    have. With `url` it is a gateway that runs already, started by `make serve`.

    Raises:
        Unavailable: it does not start, or `url` is none of this machine's own.
    """
    if url:
        port = _loopback_port(url)
        yield _deployed(port)
        return
    port = processes.free_port()
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        config = Path(folder, "overhead.yaml")
        instant = {"name": MODEL, "engine": "sim", "simulation": {"instant": True}}
        config.write_text(yaml.safe_dump(serve_config(port, instant)))
        with local_gateway(config, port):
            yield _deployed(port)


@dataclass(frozen=True, slots=True)
class LocalGateway:
    """A gateway on this machine, and what one may do to it."""

    url: str
    environment: Mapping[str, str]
    """What `serve` needs to find its cluster."""
    session: processes.Session

    def replica_processes(self, app: str, deployment: str = "Engine") -> list[psutil.Process]:
        """The replicas' own processes."""
        title = (f"ray::ServeReplica:{app}:{deployment}",)
        return [process for process in self.session.members if _is_titled(process, title)]


@contextmanager
def local_gateway(config: Path, port: int, model: str = MODEL) -> Iterator[LocalGateway]:
    """A gateway on this machine, as `make serve` starts it, from when `model` answers.

    Raises:
        Unavailable: it does not start.
    """
    command = [sys.executable, "-m", "deployments.local", "serve", str(config)]
    with _logged(command) as (process, log):
        _await_answer(port, process, model)
        while not (exports := [line for line in _lines(log) if line.startswith("  export ")]):
            _pause()  # what it prints once all models answer
        yield LocalGateway(
            url=f"http://{HOST}:{port}",
            environment=dict(word.split("=", 1) for word in exports[0].split()[1:]),
            session=processes.Session.read(NOTES / f"{process.pid}.json"),
        )


def serve_config(port: int, *models: Mapping[str, object]) -> dict[str, Any]:
    """A Serve config with one router and an application for each model entry."""
    gateway = {
        "name": "gateway",
        "import_path": "deployments.app:gateway",
        "route_prefix": "/",
        "deployments": [{"name": "Router", "num_replicas": 1}],
    }
    applications = [
        {
            "name": entry["name"],
            "import_path": "deployments.app:model",
            "route_prefix": None,
            "args": dict(entry),
        }
        for entry in models
    ]
    return {"http_options": {"host": HOST, "port": port}, "applications": [gateway, *applications]}


def _deployed(port: int) -> Target:
    cluster = _Cluster(port)
    return Target("gateway", port, cluster.on_the_path, cluster.beside_it)


@contextmanager
def vllm_router(policy: str, engine_port: int) -> Iterator[Target]:
    """vLLM's router in Rust, installed into an environment of its own.

    Raises:
        Unavailable: it cannot be installed or started here.
    """
    port, metrics_port = processes.free_port(), processes.free_port()
    command = [
        *(_vllm_router_binary(), "--host", HOST, "--port", port, "--policy", policy),
        *("--worker-urls", f"http://{HOST}:{engine_port}"),
        *("--prometheus-port", metrics_port, "--log-level", "error"),
    ]
    with _running([str(word) for word in command]) as process:
        _await_answer(port, process)
        yield Target(f"vllm-router {policy}", port, lambda: _family(process))


class _Cluster:
    """The processes of a local cluster whose HAProxy, or Serve's own proxy, listens on a port."""

    def __init__(self, port: int) -> None:
        listening = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
        ]
        if not listening or listening[0] is None:
            raise Unavailable(f"nothing that we may look at listens on port {port}")
        self._session = processes.Session.led_by(os.getsid(listening[0]))

    def on_the_path(self) -> list[psutil.Process]:
        """HAProxy and the Router's replica."""
        return [process for process in self._session.members if _is_titled(process, PATH_TITLES)]

    def beside_it(self) -> list[psutil.Process]:
        """All others, but for the engine's."""
        titles = (*PATH_TITLES, ENGINE_TITLE)
        return [process for process in self._session.members if not _is_titled(process, titles)]


def _loopback_port(url: str) -> int:
    parts = urllib.parse.urlsplit(url)
    if parts.hostname not in {HOST, "localhost"} or not parts.port:
        raise Unavailable(f"{url} is not http://{HOST}:<port>: load stays on this machine")
    return parts.port


def _is_titled(process: psutil.Process, titles: Sequence[str]) -> bool:
    try:
        title = f"{process.name()} {' '.join(process.cmdline())}"
    except psutil.Error:
        return False  # it has just gone
    return any(wanted in title for wanted in titles)


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _vllm_router_binary() -> Path:
    binary = PEERS / "bin" / "vllm-router"
    if not binary.exists():
        pip = [PEERS / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
        for command in ([sys.executable, "-m", "venv", PEERS], [*pip, "install", VLLM_ROUTER]):
            words = [str(word) for word in command]
            done = subprocess.run(words, check=False, capture_output=True, text=True)
            if done.returncode:
                raise Unavailable(f"{VLLM_ROUTER}: {done.stderr.strip().splitlines()[-1]}")
    return binary


@contextmanager
def _running(command: Sequence[str]) -> Iterator[psutil.Process]:
    with _logged(command) as (process, _):
        yield process


def _lines(log: IO[bytes]) -> Iterator[str]:
    log.seek(0)
    return iter(log.read().decode(errors="replace").splitlines())


@contextmanager
def _logged(command: Sequence[str]) -> Iterator[tuple[psutil.Process, IO[bytes]]]:
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            command, cwd=PROJECT_ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            yield process, log
        except Unavailable as error:
            text = "\n".join(_lines(log))
            raise Unavailable(f"{error}\n{text[-2000:]}") from None
        finally:
            processes.end([process], STOP_TIMEOUT_S)


def _await_answer(port: int, process: psutil.Process, model: str = MODEL) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while (answer := _answer(port, model)) != "200 OK":
        if process.status() == psutil.STATUS_ZOMBIE:
            raise Unavailable("it ended before it was ready")
        if time.monotonic() > deadline_s:
            raise Unavailable(f"it was not ready within {START_TIMEOUT_S} s: {answer}")
        _pause()


def _answer(port: int, model: str) -> str:
    messages = [{"role": "user", "content": "x"}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": 1})
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("POST", ROUTE, body, {"content-type": "application/json"})
        response = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    else:
        return f"{response.status} {response.reason}"
    finally:
        connection.close()


def _pause() -> None:
    time.sleep(0.2)  # noqa: TID251 - no event loop runs here
