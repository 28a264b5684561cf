"""`gateway docs`: the generated reference tables."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.reference.pages import Topic, filled, printed


def docs(
    topic: Annotated[Topic, typer.Argument(help="Which tables to print.")] = Topic.CONFIG,
    *,
    update: Annotated[
        Path | None,
        typer.Option(help="Instead of printing, fill the tables into the pages of this folder."),
    ] = None,
) -> None:
    """Print reference tables as Markdown, or bring pages up to date with them."""
    if update is None:
        sys.stdout.write(printed(topic))
        return
    for path in sorted(update.glob("*.md")):
        path.write_text(filled(path.read_text()))
