"""Prometheus and Grafana beside a gateway on this machine, until Ctrl-C.

    python -m deployments.local.observe

They monitor every gateway that is started from this checkout, now or later; all their files are
below `.run/observe`.
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
from deployments.local.monitoring import HOST, MonitoringProgram, grafana, prometheus, write_agents
from deployments.local.scrape_targets import agents_of, lists_of, sessions_in
from deployments.local.session_files import RUN_DIRECTORY

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
FILES = RUN_DIRECTORY / "observe"
POLL_S = 0.2
REFRESH_S = 5.0
"""Ray writes its lists as often."""

app = typer.Typer(add_completion=False)


@app.command()
def observe(
    lists: Annotated[
        list[Path] | None,
        typer.Argument(help="Ray's lists of agents, instead of those of this checkout's gateways."),
    ] = None,
    prometheus_port: Annotated[int, typer.Option(help="Port of Prometheus.")] = 9090,
    grafana_port: Annotated[int, typer.Option(help="Port of Grafana.")] = 3000,
    directory: Annotated[Path, typer.Option(help="Directory of their files.")] = FILES,
) -> None:
    """Start Prometheus and Grafana for the gateways on this machine; Ctrl-C stops both."""
    directory = directory.resolve()
    programs = _programs(directory, prometheus_port, grafana_port)
    for program in programs:
        if (holder := processes.port_holder(HOST, program.port)) is not None:
            raise SystemExit(f"port {program.port} of {program.name} is in use by {holder}")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopped.set())
    agents = agents_of(lists or lists_of(sessions_in(RUN_DIRECTORY)))
    write_agents(directory, agents)
    running: list[_RunningProgram] = []
    try:
        for program in programs:
            running.append(_RunningProgram(program, directory))
            running[-1].wait(stopped)
        if not stopped.is_set():
            _welcome(programs, agents)
        while not stopped.wait(REFRESH_S):
            for each in running:
                each.check()
            write_agents(directory, agents_of(lists or lists_of(sessions_in(RUN_DIRECTORY))))
    finally:
        processes.end([each.process for each in running], STOP_TIMEOUT_S)


def _programs(directory: Path, prometheus_port: int, grafana_port: int) -> list[MonitoringProgram]:
    """Programs that are installed; Prometheus is required."""
    path = os.environ.get("PATH", "")
    first = prometheus(directory, prometheus_port, path)
    if first is None:
        raise SystemExit(INSTALL_PROMETHEUS)
    second = grafana(directory, grafana_port, path, first.url)
    if second is None:
        typer.echo(INSTALL_GRAFANA, err=True)
        return [first]
    return [first, second]


class _RunningProgram:
    """A program that has been started, with its output in a file."""

    def __init__(self, program: MonitoringProgram, directory: Path) -> None:
        self._program = program
        self._log = directory / f"{program.name.lower()}.log"
        with self._log.open("w") as log:
            self.process = psutil.Popen(
                program.command,
                env={**os.environ, **program.environment},
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process, which ends it
            )

    def wait(self, stopped: threading.Event) -> None:
        """Return once it answers, or a signal has come."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._is_up and not stopped.wait(POLL_S):
            self.check()
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{self._program.name} does not start: see {self._log}")

    def check(self) -> None:
        """Exit with the path of its log, if it has ended by itself."""
        if self.process.poll() is not None:
            raise SystemExit(f"{self._program.name} has ended: see {self._log}")

    @property
    def _is_up(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._program.port, timeout=POLL_S)
        try:
            connection.request("GET", self._program.health)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _welcome(programs: Sequence[MonitoringProgram], agents: Sequence[str]) -> None:
    for program in programs:
        typer.echo(f"{program.name}: {program.url}")
    if not agents:
        typer.echo("no gateway runs here yet: the next `gateway serve` is found automatically")
    typer.echo("Ctrl-C stops it")


if __name__ == "__main__":
    app()
