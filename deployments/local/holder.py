"""Inner process of a local gateway: starts a cluster or joins one, and holds it until a signal.

It is started by `python -m deployments.local.holder CONFIG [--address HOST:6379]`.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import ray
import typer
import yaml
from ray import serve as ray_serve
from ray.exceptions import RayError

from deployments.local import processes
from deployments.local.dashboard import DeployFailed, deploy
from deployments.local.events import Events
from deployments.local.gateway_view import RunningGateway
from deployments.local.session_files import remove_as_orphan
from deployments.local.startup import GatewayAddress, watch, welcome
from deployments.local.terminal import say
from deployments.serve_internals.local_cluster import join_cluster, start_cluster
from gateway.config.loader import load_config
from gateway.config.loopback import ANY_HOST
from gateway.environment import Settings
from gateway.local_files import logs_in

GATEWAY_IMPORT = "deployments.app:gateway"
DRAIN_S = 30.0
"""Time that running requests have to finish when the gateway is stopped."""
EVENT_PERIOD_S = 1.0
ENVIRONMENT_TIMEOUT_S = 30.0
LOGS_ARE_IN = """\
Ctrl-C stops it, once its requests have finished. What happens is shown here; the logs are in
  {logs}
"""
RAY_SESSION = "/tmp/ray/session_latest"  # noqa: S108 - Ray's own place

app = typer.Typer(add_completion=False)


@app.command()
def hold(config: Path, address: Annotated[str, typer.Option()] = "") -> None:
    """Hold a gateway until a signal, or until the outer process has ended."""
    signals = _Signals()
    threading.Thread(target=_wait_for_orphaning, args=(signals.stopped.set,), daemon=True).start()
    logs = logs_in(Path(tempfile.gettempdir()))
    if address:
        dashboard, session = _joined(address)
        logs = Path(session or RAY_SESSION) / "logs"
    else:
        dashboard = start_cluster(processes.free_port())
    signals.install()
    # Serve's own remarks on the handles of this process; its processes log to files.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    document = yaml.safe_load(config.read_text())
    gateway = RunningGateway(_gateway_application(document), is_own=not address)
    try:
        deploy(document, dashboard, os.environ)
        code = _watch(config, document, dashboard, gateway, signals)
        if code == 0:
            say(LOGS_ARE_IN.format(logs=logs))
            _follow(gateway, signals.stopped)
    except DeployFailed as error:
        typer.echo(str(error), err=True)
        code = 1
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


def _joined(address: str) -> tuple[str, str]:
    """Join the cluster at an address, if it runs nothing yet; its dashboard and its directory."""
    try:
        found = join_cluster(address)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise SystemExit(f"no Ray cluster can be joined at {address}: {error}") from None
    if running := sorted(ray_serve.status().applications):
        raise SystemExit(
            f"this cluster runs {', '.join(running)} already: `serve deploy FILE` changes what it"
            " runs, `serve shutdown` ends it"
        )
    asked = ray.remote(num_cpus=0)(_missing_variables).remote()
    try:
        missing = ray.get(asked, timeout=ENVIRONMENT_TIMEOUT_S)  # noqa: TID251 - no event loop here
    except RayError as error:
        say(f"warning: this cluster's nodes cannot be asked for their variables: {error}")
        return found
    if missing:
        say(
            f"warning: this cluster runs without {', '.join(missing)}, and is several times slower:"
            ' run `eval "$(gateway env)"` before `ray start`, on every node'
        )
    return found


def _missing_variables() -> list[str]:
    return Settings.read(os.environ).missing


def _watch(
    config: Path,
    document: dict[str, Any],
    dashboard: str,
    gateway: RunningGateway,
    signals: _Signals,
) -> int:
    """Show the start, and what to do then; 0 if it succeeds."""
    loaded = load_config(config)
    models = [model.entry.name for model in loaded.models]
    options = document["http_options"]
    address = GatewayAddress.of(
        options.get("host", ANY_HOST), options["port"], "" if gateway.is_own else dashboard
    )
    code = watch(models, gateway, address, signals.stopped)
    if code == 0:
        say(welcome(models, address, dashboard, needs_key=loaded.gateway.is_authenticated))
    return code


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
            f"stopping: {requests} {DRAIN_S:g} s to finish; Ctrl-C or `gateway stop` again ends"
            f" {'it' if running == 1 else 'them'} at once"
        )
    gateway.drain(DRAIN_S, signals.hurried.is_set)


def _gateway_application(document: dict[str, Any]) -> str:
    """Name of the gateway's application."""
    applications = document["applications"]
    return next(str(a["name"]) for a in applications if a["import_path"] == GATEWAY_IMPORT)


def _wait_for_orphaning(then: Callable[[], None]) -> None:
    os.read(sys.stdin.fileno(), 1)
    then()


if __name__ == "__main__":
    app()
