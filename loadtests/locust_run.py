"""A locust test from start to end: its own gateway, locust, figures and a picture.

`make loadtest WORKLOAD=chat` is `python -m loadtests.locust_run --workload chat`; with `--url` the
load goes to a running server.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import psutil
import typer
import yaml

from deployments.local import processes
from loadtests.launch import HOST, PROJECT_ROOT, STOP_TIMEOUT_S, Unavailable, exit_on_signals
from loadtests.locust_users.options import DEMO_TEAMS, team_keys
from loadtests.targets import local_gateway
from loadtests.workloads.conversations import TEAMS

CONFIG = PROJECT_ROOT / "configs" / "sim.yaml"
TEAMS_CONFIG = CONFIG.with_name("teams.yaml")
"""Config for the workload `teams`: the one whose projects are its default."""
RESULTS = PROJECT_ROOT / "build" / "loadtests"
LOCUSTFILE = PROJECT_ROOT / "loadtests" / "locustfile.py"
SHOWN_LOG_LINES = 30
"""Last lines of locust's log that are shown if it ends without results."""


@contextlib.contextmanager
def gateway(config: Path, api_key: str = "") -> Iterator[str]:
    """The URL of a config's gateway, on a free port; `api_key`: if clients need one.

    Raises:
        Unavailable: it does not start.
    """
    document = yaml.safe_load(config.read_text())
    document["http_options"] = {"host": HOST, "port": processes.free_port()}
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        for application in document["applications"]:
            if accounts := application.get("args", {}).get("accounts"):
                accounts["database"] = f"sqlite:///{folder}/accounts.db"  # not the user's own
        with local_gateway(document, api_key) as running:
            yield running.url


def run_locust(url: str, folder: Path, options: Sequence[str]) -> int:
    """Run locust with its results in a folder, and return its exit status."""
    files = {"--results": "results.json", "--plot": "plot.png", "--html": "report.html"}
    outputs = [word for option, name in files.items() for word in (option, str(folder / name))]
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", url, *outputs]
    log = ["--only-summary", "--logfile", str(folder / "locust.log")]
    process = psutil.Popen(
        [*command, *log, *options],
        cwd=PROJECT_ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    session = processes.Session.led_by(process.pid)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            return int(process.wait())
    finally:
        processes.end([process], STOP_TIMEOUT_S)  # it writes its results first
        processes.end(session.members, STOP_TIMEOUT_S)
    return int(process.wait())


def main(
    context: typer.Context,
    url: Annotated[str, typer.Option(help="A running server.")] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Config of the gateway that is started without --url."
        ),
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Start locust's page, not the load.")] = False,
) -> None:
    """Send load and report the results; all other options are locust's."""
    exit_on_signals()
    folder = RESULTS / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    port = str(processes.free_port())
    mode = ["--web-host", HOST, "--web-port", port] if web else ["--headless"]
    has_teams = TEAMS in context.args
    config = config or (TEAMS_CONFIG if has_teams else CONFIG)
    key = next(iter(team_keys(DEMO_TEAMS).values())) if has_teams else ""
    try:
        with contextlib.nullcontext(url) if url else gateway(config, key) as target:
            page = f": start it at http://{HOST}:{port}, end with Ctrl-C" if web else ""
            typer.echo(f"load to {target}{page}")
            status = run_locust(target, folder, [*mode, *context.args])
    except Unavailable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if not (folder / "results.json").exists():
        log = folder / "locust.log"
        typer.echo("\n".join(log.read_text().splitlines()[-SHOWN_LOG_LINES:]), err=True)
    typer.echo(f"in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    raise typer.Exit(status)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(main)
    app()
