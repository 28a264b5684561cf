"""`gateway serve` and `gateway stop`: run a gateway on this machine, by `deployments.local`."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from gateway.child_process import module_command, module_environment

MODULE = "deployments.local"


def serve(
    file: Annotated[
        Path,
        typer.Argument(
            help="YAML file of a deployment, or the name of a packaged one: dev, sim, teams, ..."
        ),
    ] = Path("dev"),
    *,
    port: Annotated[
        int | None, typer.Option(help="Port to use instead of the file's.", min=1, max=65_535)
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            help="Join the Ray cluster at this address, instead of starting one: `HOST:6379`, or"
            " `auto` for the one that runs here."
        ),
    ] = "",
) -> None:
    """Run a gateway until Ctrl-C: start Ray or join a cluster, deploy FILE, and say what happens.

    At Ctrl-C, requests have 30 seconds to finish; a second Ctrl-C ends them at once. A cluster that
    was joined runs on without the gateway. Exit status 1 if it cannot start.
    """
    arguments = ["serve", str(file), *(["--port", str(port)] if port is not None else [])]
    _become(*arguments, *(["--address", address] if address else []))


def stop(
    *,
    port: Annotated[
        int | None, typer.Option(help="Stop only the gateway at this port.", min=1, max=65_535)
    ] = None,
) -> None:
    """Stop the gateways that this user has started here, and what a crash has left of one.

    Requests have 30 seconds to finish; a second `gateway stop` ends them at once.
    """
    _become("stop", *(["--port", str(port)] if port is not None else []))


def _become(*arguments: str) -> None:
    """Go on as `deployments.local`, which gets the signals: this package knows nothing of Ray."""
    if find_spec("ray") is None:
        typer.echo(
            "Ray is not installed here: install ray-llm-gateway with its dependencies", err=True
        )
        raise typer.Exit(1)
    command = module_command(MODULE, *arguments)
    os.execve(command[0], command, module_environment(os.environ))  # noqa: S606 - no shell
