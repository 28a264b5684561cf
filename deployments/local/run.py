"""Gateway on this machine: a Ray cluster with it, started, watched and stopped as a whole.

    gateway serve FILE --port 8000
    gateway stop

`serve` is two processes. The outer one, of this module, stays in the terminal. The inner one
(`deployments.local.holder`) leads a session of its own, so that Ctrl-C reaches only the outer one,
and holds the cluster. When either ends, for whatever reason, the other stops the cluster; processes
that outlive both are ended by `stop`, which finds the sessions by their files
(`deployments.local.session_files`).

A stop is a drain first: requests finish, or end with an error after `DRAIN_S`. Ctrl-C, SIGTERM, a
closed terminal and `stop` are the same; the second one ends all requests at once. All temporary
files of a cluster that was started here are in one directory (`deployments.local.temporary`), which
is removed in the end, or by the next start if everything has been killed.
"""

import contextlib
import math
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer
import yaml

from deployments.local import processes, temporary
from deployments.local.private_files import ensure_token, write_private
from deployments.local.session_files import (
    LEFTOVER_TIMEOUT_S,
    LOGS,
    RUN_DIRECTORY,
    clean_up,
    known_sessions,
    port_of,
    remove,
)
from deployments.local.terminal import say
from gateway import environment as variables
from gateway.child_process import shadowing
from gateway.config.loader import load_config
from gateway.config.loopback import ANY_HOST
from gateway.config.packaged import deployment_path
from gateway.config.serve_values import DEFAULT_PORT
from gateway.errors.startup import ConfigError

HOLDER = "deployments.local.holder"
STOP_TIMEOUT_S = 90.0
"""Time for a whole stop, the drain included; what is left then is killed."""
POLL_S = 0.5
CONNECT_TIMEOUT_S = 5.0
ROUTER_PORTS = (30_000, 31_000)
"""Ports from which Serve assigns the HTTP servers of its ingress replicas."""
PORTS_PER_CLUSTER = 50

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def serve(
    config: Annotated[Path, typer.Argument()] = Path("dev"),
    port: Annotated[int | None, typer.Option(min=0, max=65_535)] = None,
    address: Annotated[str, typer.Option()] = "",
) -> None:
    """Run a gateway on this machine, as `gateway serve` says."""
    if (shadow := shadowing(Path.cwd())) is not None:
        raise SystemExit(
            f"{shadow} would be imported in place of this project's package of that name:"
            " Ray imports from the working directory: start the gateway in another directory"
        )
    try:
        config = deployment_path(config)
        load_config(config)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    _check_cluster(address)
    clean_up(RUN_DIRECTORY)
    document = yaml.safe_load(config.read_text())
    options = document["http_options"] = document.get("http_options") or {}
    options["port"] = port or options.get("port", DEFAULT_PORT)
    if not address:  # of a cluster that is joined, other machines may listen
        _check_port(options.get("host", ANY_HOST), options["port"])
    raise SystemExit(_run(document, address))


@app.command()
def stop(port: Annotated[int | None, typer.Option(min=1, max=65_535)] = None) -> None:
    """Stop gateways started here, as `gateway stop` says."""
    count = 0
    for file, session in known_sessions(RUN_DIRECTORY):
        if port is not None and port_of(file) != port:
            continue
        members = session.members
        count += len(members)
        if session.leader is not None:
            typer.echo(
                f"stopping process {session.id}: its requests may finish;"
                " `gateway stop` again ends them at once"
            )
            processes.end([session.leader], STOP_TIMEOUT_S)
        processes.end(session.members, LEFTOVER_TIMEOUT_S)
        remove(file, session.directory)
    clean_up(RUN_DIRECTORY)
    typer.echo(f"stopped {count} processes" if count else "nothing was running")


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


def _check_cluster(address: str) -> None:
    """Exit with a line if nothing listens at `HOST:PORT`: Ray itself would try for minutes."""
    if not address or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in host:
        raise SystemExit(f"{address} is no address of a Ray cluster: HOST:6379, or `auto`")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise SystemExit(f"no Ray cluster can be joined at {address}: {error}") from None


def _check_port(host: str, port: int) -> None:
    """Exit with a line if nothing can listen there."""
    try:
        holder = processes.port_holder(host, port)
    except OSError as error:
        raise SystemExit(f"cannot listen on {host} port {port}: {error.strerror}") from None
    if holder is not None:
        raise SystemExit(
            f"port {port} is in use by {holder}: end it (`gateway stop`, if it is a gateway),"
            " or choose another port with `--port 8001` (`make serve PORT=8001`)"
        )


def _run(document: dict[str, object], address: str) -> int:
    """Run the inner process on a config, end what it leaves, and return its exit code."""
    if not address:  # a cluster that is joined has its own
        ensure_token(os.environ)
    RUN_DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = RUN_DIRECTORY / f"{os.getpid()}.json"
    leader, directory = start_leader(document, file, address)
    session = processes.Session.led_by(leader.pid, directory)
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
                return _end_of(leader.wait(POLL_S), is_joined=bool(address))
        say(f"it has not stopped within {STOP_TIMEOUT_S:g} s; killing what is left")
        return 1
    finally:
        processes.end(session.members, LEFTOVER_TIMEOUT_S)
        remove(file, session.directory)


def start_leader(
    document: dict[str, object], file: Path, address: str = ""
) -> tuple[subprocess.Popen[bytes], str]:
    """Start the inner process, and make its directory; nothing is left if that fails.

    `address`: of a cluster to join; the directory is then none.

    Raises:
        SystemExit: there are no free ports, or no HAProxy of ours is installed.
    """
    config = file.with_suffix(".yaml")
    arguments = [str(config), *(["--address", address] if address else [])]
    try:
        env = _joining_environment() if address else environment()
    except OSError as error:
        raise SystemExit(f"cannot start: {error.strerror or error}") from None
    directory = "" if address else str(temporary.make_directory())
    try:
        write_private(config, yaml.safe_dump(document))
        if directory:
            env |= temporary.variables(Path(directory))
        return processes.spawn_leader(HOLDER, arguments, env), directory
    except BaseException:
        remove(file, directory)
        raise


def _joining_environment() -> dict[str, str]:
    """Environment of a process that joins a cluster, whose own was set when Ray was started."""
    return {variables.AUTH_MODE: os.environ.get(variables.AUTH_MODE, "token")}


def _end_of(code: int, *, is_joined: bool) -> int:
    """The exit code of the inner process, after a word on one that ended without any."""
    if code not in {0, 1, -signal.SIGTERM}:
        kept = "" if is_joined else f"; its logs are kept in {LOGS}"
        say(f"the gateway ended by itself (exit code {code}){kept}")
    return code
