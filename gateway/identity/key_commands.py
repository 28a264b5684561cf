"""`gateway keys`: makes API keys."""

import json
from typing import Annotated

import typer

from gateway.identity.api_key import new_key

keys = typer.Typer(no_args_is_help=True, help="Make API keys.")


@keys.callback()
def _keys() -> None:
    """Make API keys."""


@keys.command("new")
def new(*, name: Annotated[str, typer.Option(help="Name of the key, for people.")] = "") -> None:
    """Print a new API key for its owner, and the hash of it for a projects file."""
    key = new_key()
    named = f", name: {json.dumps(name)}" if name else ""
    typer.echo(key.secret)
    typer.echo(
        "The key above is shown once: give it to its owner. For the projects file:", err=True
    )
    typer.echo(f"- {{hash: {key.hash}{named}}}")
