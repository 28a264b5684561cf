"""A load test from beginning to end: a gateway of its own, locust, figures and a picture.

`make loadtest WORKLOAD=chat` is `python -m loadtests.locust_run --workload chat`; with `--url` it
sends its load to a server that is there already.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import psutil
import typer
import yaml
from rich.console import Console

from deployments.local import processes
from loadtests.launch import HOST, PROJECT_ROOT, STOP_TIMEOUT_S, Unavailable, end_in_order
from loadtests.targets import local_gateway
from loadtests.users.results import Results
from loadtests.users.table import remarks, table

CONFIG = PROJECT_ROOT / "configs" / "sim.yaml"
RESULTS = PROJECT_ROOT / "build" / "loadtests"
LOCUSTFILE = PROJECT_ROOT / "loadtests" / "locustfile.py"
TOLD_LINES = 30
"""Of what locust says, where it ends without results."""


class Failed(Exception):
    """Locust has ended without results; the message says where its log is."""


@contextlib.contextmanager
def gateway(config: Path) -> Iterator[str]:
    """A config's gateway at a port that is free, from when its first model answers.

    Raises:
        Unavailable: it does not start.
    """
    port = processes.free_port()
    wanted: dict[str, Any] = yaml.safe_load(config.read_text())
    wanted["http_options"] = {"host": HOST, "port": port}
    names = (app.get("args", {}).get("name") for app in wanted["applications"])
    model = next(name for name in names if name)
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        moved = Path(folder, config.name)
        moved.write_text(yaml.safe_dump(wanted))
        with local_gateway(moved, port, model) as local:
            yield local.url


@contextlib.contextmanager
def locust(host: str, folder: Path, options: Sequence[str]) -> Iterator[psutil.Popen]:
    """Locust at work; what it says is in its folder's `locust.log`."""
    files = {"--results": "results.json", "--plot": "plot.png", "--html": "report.html"}
    kept = [word for option, name in files.items() for word in (option, str(folder / name))]
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", host, *kept]
    with (folder / "locust.log").open("wb") as log:
        process = psutil.Popen(
            [*command, "--only-summary", *options],
            cwd=PROJECT_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        session = processes.Session.led_by(process.pid)
        try:
            yield process
        finally:
            processes.end([process], STOP_TIMEOUT_S)  # it writes its results first
            processes.end(session.members, STOP_TIMEOUT_S)  # its workers, if it has any


def tell(console: Console, folder: Path) -> bool:
    """Print what came of it, and where it is; whether there were answers, and nothing failed.

    Raises:
        Failed: there are no results.
    """
    kept = folder / "results.json"
    if not kept.exists():
        said = (folder / "locust.log").read_text().splitlines()
        raise Failed("\n".join([*said[-TOLD_LINES:], f"no results; see {folder}/locust.log"]))
    results = msgspec.json.decode(kept.read_bytes(), type=Results)
    console.print(table(results))
    for remark in remarks(results):
        console.print(remark, markup=False, soft_wrap=True)
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    console.print(f"in {folder}: {names}", markup=False, soft_wrap=True)
    return results.total.answered > 0 and not results.total.failed


def main(
    context: typer.Context,
    url: Annotated[str, typer.Option(help="A server that is there already.")] = "",
    config: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Of the gateway started otherwise.")
    ] = CONFIG,
    web: Annotated[bool, typer.Option("--web", help="Start locust's page, not the load.")] = False,
) -> None:
    """Send load and say what came of it; all other options are locust's."""
    end_in_order()
    folder = RESULTS / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    page = f"http://{HOST}:{processes.free_port()}"
    mode = ["--web-host", HOST, "--web-port", page.rpartition(":")[2]] if web else ["--headless"]
    console = Console(width=140)
    try:
        with contextlib.nullcontext(url) if url else gateway(config) as host:
            start = f"start it at {page}, end with Ctrl-C" if web else "begins"
            console.print(f"load to {host}: {start}", soft_wrap=True)
            with (
                contextlib.suppress(KeyboardInterrupt),
                locust(host, folder, [*mode, *context.args]) as process,
            ):
                process.wait()
        is_good = tell(console, folder)
    except (Unavailable, Failed) as error:
        console.print(str(error), markup=False, soft_wrap=True)
        is_good = False
    raise typer.Exit(0 if is_good else 1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(main)
    app()
