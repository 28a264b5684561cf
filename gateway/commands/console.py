"""What commands that ask a running gateway share: options, errors and tables."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from gateway.commands.admin_client import AdminClient, path_part
from gateway.commands.api_client import DEFAULT_URL, ApiClient, ApiError, Json
from gateway.environment import ADMIN_KEY, GATEWAY_URL

OPERATORS = "/gateway"
OPERATOR_TIMEOUT_S = 10.0
"""Routers wait for each other for two seconds at most."""
UP = {"ready", "scaled_to_zero"}
"""States of models that answer."""
NO_LIMIT = 2**53 - 1
"""A limit that limits nothing."""
WIDTH = 240
"""Width of tables in pipes and files."""

Url = Annotated[
    str,
    typer.Option("--url", envvar=GATEWAY_URL, help="Address of the gateway."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_ADDRESS = DEFAULT_URL


@contextlib.contextmanager
def admin_client(url: str) -> Iterator[AdminClient]:
    """A client; what the gateway refuses ends the command with its reason."""
    try:
        yield AdminClient.at(url)
    except ApiError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def operator_client(url: str) -> ApiClient:
    """A client of the routes under `/gateway`, with the key of the environment."""
    return ApiClient(url, os.environ.get(ADMIN_KEY, ""), OPERATORS, OPERATOR_TIMEOUT_S)


def project_id(client: AdminClient, name: str) -> str:
    """Id of the project with this id or name.

    Raises:
        ApiError: there is none, or several have the name.
    """
    if name.startswith("proj_"):
        return path_part(name)
    found = [each["id"] for each in client.list_all("/projects") if each["name"] == name]
    if len(found) != 1:
        many = f"{len(found)} projects are" if found else "no project is"
        raise ApiError(f"{many} named {name!r}; `gateway projects list` shows their ids")
    return str(found[0])


def print_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2))


def plain_console(width: int = WIDTH) -> Console:
    """A console that prints what it is given as it is; `width`: in pipes and files."""
    shown = None if sys.stdout.isatty() else width
    return Console(markup=False, highlight=False, width=shown)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows as a table that cuts no name."""
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    plain_console().print(table)


def print_plain_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], indent: int = 0
) -> None:
    """Print rows in columns without lines between; the last column takes what is left."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell in (None, "") else str(cell) for cell in row))
    padded = Padding(table, (0, 0, 0, indent), expand=False)
    plain_console().print(padded)


def shown_time(seconds: int | None) -> str | None:
    """Unix time as people read it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def shown_list(values: Sequence[str] | None) -> str:
    """Names, or that there is no restriction."""
    return "all" if values is None else ", ".join(values) or "none"


def shown_limit(value: int | None) -> str | None:
    """A limit, if it limits anything."""
    return None if value is None or value >= NO_LIMIT else f"{value:,}"


def print_new_key(key: Json, *, as_json: bool) -> None:
    """Print a key that has just been created, with its secret."""
    if as_json:
        print_json(key)
        return
    typer.echo(f"key {key['id']}: it is shown only now")
    typer.echo(key["value"])
