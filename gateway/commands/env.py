"""`gateway env`: the variables to set before Ray starts."""

import shlex

import typer

from gateway.environment import installed_haproxy, recommended


def env() -> None:
    """Print the variables to set before Ray starts, for `eval "$(gateway env)"`."""
    try:
        variables = recommended(installed_haproxy())
    except FileNotFoundError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
