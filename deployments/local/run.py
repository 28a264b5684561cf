"""Gateway on this machine: a small Ray cluster of its own, started, watched and stopped as a whole.

    python -m deployments.local serve configs/dev.yaml --port 8000
    python -m deployments.local stop

`serve` is two processes. The outer one stays in the terminal. The inner one (`hold`) leads a
session of its own, so that Ctrl-C reaches only the outer one, and holds the cluster. When either
ends, for whatever reason, the other stops the cluster; processes that outlive both are ended by
`stop`, which finds the sessions of this checkout by their files in `.run`.

A stop is a drain first: requests finish, or end with an error after `DRAIN_S`. Ctrl-C, SIGTERM, a
closed terminal and `stop` are the same; the second one ends all requests at once. All temporary
files are in one directory (`deployments.local.temporary`), which is removed in the end, or by the
next start if everything has been killed.
"""

import contextlib
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import ray
import typer
import yaml
from ray import serve as ray_serve

from deployments.local import processes, temporary
from deployments.local.events import Events
from deployments.local.gateway_view import RunningGateway
from deployments.local.private_files import ensure_token, write_private
from deployments.local.session_files import (
    LEFTOVER_TIMEOUT_S,
    LOGS,
    RUN_DIRECTORY,
    clean_up,
    known_sessions,
    remove,
    remove_as_orphan,
)
from deployments.local.startup import POLL_S, deploy, gateway_address, say, watch, welcome
from deployments.serve_internals.local_cluster import start_cluster
from gateway import environment as variables
from gateway.config.loader import load_config
from gateway.config.loopback import ANY_HOST
from gateway.errors.startup import ConfigError

GATEWAY_IMPORT = "deployments.app:gateway"
DRAIN_S = 30.0
"""Time that running requests have to finish when the gateway is stopped."""
STOP_TIMEOUT_S = 90.0
"""Time for a whole stop, the drain included; what is left then is killed."""
EVENT_PERIOD_S = 1.0
ROUTER_PORTS = (30_000, 31_000)
"""Ports from which Serve assigns the HTTP servers of its ingress replicas."""
PORTS_PER_CLUSTER = 50

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def serve(
    config: Annotated[Path, typer.Argument(help="A Serve config, such as configs/dev.yaml.")],
    port: Annotated[
        int | None,
        typer.Option(help="Port to use instead of the config's.", min=0, max=65_535),
    ] = None,
) -> None:
    """Start the gateway on this machine; Ctrl-C stops it."""
    try:
        load_config(config)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    clean_up(RUN_DIRECTORY)
    document = yaml.safe_load(config.read_text())
    options = document.setdefault("http_options", {})
    host = options.get("host", ANY_HOST)
    port = options["port"] = port or options.get("port", 8000)
    try:
        holder = processes.port_holder(host, port)
    except OSError as error:
        raise SystemExit(f"cannot listen on {host} port {port}: {error.strerror}") from None
    if holder is not None:
        raise SystemExit(
            f"port {port} is in use by {holder}: end it (`make stop`, if it is this gateway),"
            " or choose another port with `make serve PORT=8001`"
        )
    raise SystemExit(_run(document))


@app.command()
def stop() -> None:
    """Stop every gateway started from this checkout, and what a crash has left of one."""
    count = 0
    for file, session in known_sessions(RUN_DIRECTORY):
        count += len(session.members)
        if session.leader is not None:
            typer.echo(
                f"stopping process {session.id}: requests have {DRAIN_S:g} s to finish;"
                " `make stop` again ends them at once"
            )
            processes.end([session.leader], STOP_TIMEOUT_S)
        processes.end(session.members, LEFTOVER_TIMEOUT_S)
        remove(file, session.directory)
    clean_up(RUN_DIRECTORY)
    typer.echo(f"stopped {count} processes" if count else "nothing was running")


@app.command(hidden=True)
def hold(config: Path) -> None:
    """Hold a cluster with the gateway until a signal, or until the outer process has ended."""
    signals = _Signals()
    threading.Thread(target=_wait_for_orphaning, args=(signals.stopped.set,), daemon=True).start()
    dashboard = start_cluster(processes.free_port())
    signals.install()
    # Serve's own remarks on the handles of this process; its processes log to files.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    gateway = RunningGateway(_gateway_application(config))
    try:
        deploy(config, dashboard)
        loaded = load_config(config)
        models = [model.entry.name for model in loaded.models]
        address = gateway_address(yaml.safe_load(config.read_text())["http_options"])
        code = watch(models, gateway, address, signals.stopped)
        if code == 0:
            needs_key = loaded.gateway.is_authenticated
            say(welcome(models, address, dashboard, needs_key=needs_key))
            _follow(gateway, signals.stopped)
    finally:
        _drain(gateway, signals)
        ray_serve.shutdown()
        ray.shutdown()
        remove_as_orphan(config.with_suffix(".json"))
    raise SystemExit(code)


class _Signals:
    """Signals to stop: the first one lets requests finish, the second one does not."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.hurried = threading.Event()

    def install(self) -> None:
        """Receive signals from here on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, *_: object) -> None:
        (self.hurried if self.stopped.is_set() else self.stopped).set()


def _follow(gateway: RunningGateway, stopped: threading.Event) -> None:
    """Print what happens, one line each, until the stop."""
    events, is_lost = Events(), False
    while not stopped.wait(EVENT_PERIOD_S):
        try:
            lines = events.lines(gateway.view())
        except Exception as error:  # noqa: BLE001 - the controller may be restarting
            lines = [] if is_lost else [f"Serve's controller does not answer: {error!r:.200}"]
            is_lost = True
        else:
            lines = ["Serve's controller answers again", *lines] if is_lost else lines
            is_lost = False
        for line in lines:
            say(f"{time.strftime('%H:%M:%S')}  {line}")


def _drain(gateway: RunningGateway, signals: _Signals) -> None:
    """Let all requests finish, for `DRAIN_S` at most, and not after a second signal."""
    if not gateway.has_routers():
        say("stopping")
        return
    running = sum(report.running for report in gateway.reports().values())
    if not running:
        say("stopping")
    else:
        requests = "1 request has" if running == 1 else f"{running} requests have"
        say(
            f"stopping: {requests} {DRAIN_S:g} s to finish; Ctrl-C or `make stop` again ends"
            f" {'it' if running == 1 else 'them'} at once"
        )
    gateway.drain(DRAIN_S, signals.hurried.is_set)


def _gateway_application(config: Path) -> str:
    """Name of the gateway's application."""
    applications = yaml.safe_load(config.read_text())["applications"]
    return next(str(a["name"]) for a in applications if a["import_path"] == GATEWAY_IMPORT)


def environment() -> dict[str, str]:
    """Environment that makes Serve fast, and separates it from other clusters on this machine."""
    # With Serve's own ports, two clusters on one machine would use each other's routers.
    routers = processes.free_ports(*ROUTER_PORTS, size=PORTS_PER_CLUSTER)
    return {
        **variables.recommended(variables.installed_haproxy()),
        variables.FALLBACK_PROXY_PORT: str(processes.free_port()),
        variables.ROUTER_MIN_PORT: str(routers[0]),
        variables.ROUTER_MAX_PORT: str(routers[-1]),
        # Serve's four threads would fight over fewer cores, with the router and with each other.
        variables.HAPROXY_THREADS: str(min(4, max(1, (os.cpu_count() or 1) // 2))),
        variables.HAPROXY_METRICS_PORT: str(processes.free_port()),
        variables.HAPROXY_STATS_PORT: str(processes.free_port()),
        variables.ROUTER_MIN_DRAINING: "3",
        variables.CLUSTER_ON_LOOPBACK: "0",
    }


def _run(document: dict[str, object]) -> int:
    """Run the inner process on a config, end what it leaves, and return its exit code."""
    ensure_token(os.environ)
    RUN_DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    file = RUN_DIRECTORY / f"{os.getpid()}.json"
    leader, directory = start_leader(document, file)
    session = processes.Session.led_by(leader.pid, str(directory))
    deadline_s = math.inf

    def stop_leader(*_: object) -> None:
        nonlocal deadline_s
        deadline_s = min(deadline_s, time.monotonic() + STOP_TIMEOUT_S)
        leader.terminate()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop_leader)
    try:
        session.write(file)
        while time.monotonic() < deadline_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return _end_of(leader.wait(POLL_S))
        say(f"it has not stopped within {STOP_TIMEOUT_S:g} s; killing what is left")
        return 1
    finally:
        processes.end(session.members, LEFTOVER_TIMEOUT_S)
        remove(file, session.directory)


def start_leader(document: dict[str, object], file: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start the inner process, and make its directory; nothing is left if that fails.

    Raises:
        SystemExit: there are no free ports, or no HAProxy of ours is installed.
    """
    try:
        env = environment()
    except OSError as error:
        raise SystemExit(f"cannot start: {error.strerror or error}") from None
    config, directory = file.with_suffix(".yaml"), temporary.make_directory()
    try:
        write_private(config, yaml.safe_dump(document))
        env |= temporary.variables(directory)
        return processes.spawn_leader("deployments.local", ["hold", str(config)], env), directory
    except BaseException:
        remove(file, str(directory))
        raise


def _end_of(code: int) -> int:
    """The exit code of the inner process, after a word on one that ended without any."""
    if code not in {0, 1, -signal.SIGTERM}:
        say(f"the cluster ended by itself (exit code {code}); its logs are kept in {LOGS}")
    return code


def _wait_for_orphaning(then: Callable[[], None]) -> None:
    os.read(sys.stdin.fileno(), 1)
    then()
