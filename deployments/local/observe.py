"""Prometheus and Grafana beside a gateway on this machine, until Ctrl-C.

    python -m deployments.local.observe

They watch every gateway that is started from this checkout, also those that come later; all their
files are below `.run/observe`.
"""

import http.client
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import psutil
import typer

from deployments.local import processes
from deployments.local.monitoring import HOST, Observer, grafana, prometheus, write_agents
from deployments.local.run import NOTES
from deployments.local.scrape_targets import agents_of, lists_of, sessions_of

INSTALL_PROMETHEUS = (
    "Prometheus is not installed: `apt-get install prometheus`, `brew install prometheus`, or"
    " https://prometheus.io/download"
)
INSTALL_GRAFANA = (
    "Grafana is not installed, so there is no dashboard: `brew install grafana`, or"
    " https://grafana.com/grafana/download (Debian, Ubuntu: the package from Grafana's own archive)"
)
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20
POLL_S = 0.2
REFRESH_S = 5.0
"""As often as Ray writes its lists."""

app = typer.Typer(add_completion=False)


@app.command()
def observe(
    lists: Annotated[
        list[Path] | None,
        typer.Argument(help="Ray's lists of agents, instead of those of this checkout's gateways."),
    ] = None,
    prometheus_port: Annotated[int, typer.Option(help="Where Prometheus listens.")] = 9090,
    grafana_port: Annotated[int, typer.Option(help="Where Grafana listens.")] = 3000,
    directory: Annotated[Path, typer.Option(help="Where their files are.")] = NOTES / "observe",
) -> None:
    """Start Prometheus and Grafana for the gateways on this machine; Ctrl-C stops both."""
    directory = directory.resolve()
    observers = _observers(directory, prometheus_port, grafana_port)
    for observer in observers:
        if (holder := processes.port_holder(HOST, observer.port)) is not None:
            raise SystemExit(f"port {observer.port} of {observer.name} is taken by {holder}")
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: told.set())
    agents = agents_of(lists or lists_of(sessions_of(NOTES)))
    write_agents(directory, agents)
    running: list[_Running] = []
    try:
        for observer in observers:
            running.append(_Running(observer, directory))
            running[-1].wait(told)
        if not told.is_set():
            _welcome(observers, agents)
        while not told.wait(REFRESH_S):
            for each in running:
                each.check()
            write_agents(directory, agents_of(lists or lists_of(sessions_of(NOTES))))
    finally:
        processes.end([each.process for each in running], STOP_TIMEOUT_S)


def _observers(directory: Path, prometheus_port: int, grafana_port: int) -> list[Observer]:
    """Those that are installed; Prometheus has to be."""
    path = os.environ.get("PATH", "")
    first = prometheus(directory, prometheus_port, path)
    if first is None:
        raise SystemExit(INSTALL_PROMETHEUS)
    second = grafana(directory, grafana_port, path, first.url)
    if second is None:
        typer.echo(INSTALL_GRAFANA, err=True)
        return [first]
    return [first, second]


class _Running:
    """An observer that has been started, its output in a file."""

    def __init__(self, observer: Observer, directory: Path) -> None:
        self._observer = observer
        self._log = directory / f"{observer.name.lower()}.log"
        with self._log.open("w") as log:
            self.process = psutil.Popen(
                observer.command,
                env={**os.environ, **observer.environment},
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who end it
            )

    def wait(self, told: threading.Event) -> None:
        """Return once it answers, or we are told to end."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._is_up and not told.wait(POLL_S):
            self.check()
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{self._observer.name} does not come up: {self._log}")

    def check(self) -> None:
        """Exit with where to look, if it has ended by itself."""
        if self.process.poll() is not None:
            raise SystemExit(f"{self._observer.name} has ended: {self._log}")

    @property
    def _is_up(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._observer.port, timeout=POLL_S)
        try:
            connection.request("GET", self._observer.health)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _welcome(observers: Sequence[Observer], agents: Sequence[str]) -> None:
    for observer in observers:
        typer.echo(f"{observer.name}: {observer.url}")
    if not agents:
        typer.echo("no gateway runs here yet: one that `make serve` starts is found by itself")
    typer.echo("Ctrl-C stops it")


if __name__ == "__main__":
    app()
