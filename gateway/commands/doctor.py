"""`gateway doctor`: looks at every node, and says what is wrong and what to do."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.config.loader import load_config
from gateway.config.packaged import deployment_path
from gateway.config.serve_values import DEFAULT_PORT
from gateway.doctor.examination import examine
from gateway.doctor.questions import GatheringFailed, gather, questions_about
from gateway.doctor.report import as_json, is_failure, lines
from gateway.errors.startup import ConfigError

UNUSABLE = 2
"""Exit status if nothing could be looked at."""


def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="YAML file of the deployment that is to run there.")
    ] = None,
    *,
    address: Annotated[
        str, typer.Option(help="Ray's address of the cluster (`HOST:6379`); by default this one.")
    ] = "auto",
    port: Annotated[
        int | None,
        typer.Option(help="Port at which the gateway listens; by default FILE's, or 8000."),
    ] = None,
    as_json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the all-reduces over all nodes.")
    ] = False,
) -> None:
    """Look at every node of the running cluster, or at this machine, and say what is wrong.

    Exit status 1 if something does not work, 2 if the cluster or the file cannot be read.
    """
    try:
        deployment = None
        if file is not None:
            deployment = load_config(deployment_path(file), has_files=False)
        if port is None:
            port = DEFAULT_PORT if deployment is None else deployment.port
        questions = questions_about(deployment, port, address=address, has_collectives=not quick)
        findings = examine(gather(questions), deployment)
    except (ConfigError, GatheringFailed) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNUSABLE) from None
    if as_json_:
        typer.echo(as_json(findings))
    else:
        for line in lines(findings):
            typer.echo(line)
    if is_failure(findings):
        raise typer.Exit(1)
