"""`gateway batches`: the batches of a project, how far they are, and how to end one."""

import os
from typing import Annotated

import typer

from gateway.commands.api_client import ApiClient, ApiError, Json, Query
from gateway.commands.console import (
    DEFAULT_ADDRESS,
    AsJson,
    Url,
    print_json,
    print_table,
    shown_time,
)
from gateway.environment import API_KEY

PAGE = 100
HEADINGS = (
    *("id", "status", "model", "endpoint", "done", "failed", "of", "tokens in", "cached"),
    *("tokens out", "created", "due"),
)


def batches(
    *,
    cancel: Annotated[
        str | None, typer.Option(help="Id of a batch to cancel; its results are kept.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE, help="How many of the newest.")] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Print a project's batches, the newest first, or cancel one."""
    client = ApiClient(url, os.environ.get(API_KEY, ""), "/v1", key_name=API_KEY)
    try:
        if cancel is not None:
            found = [client.ask("POST", f"/batches/{cancel}/cancel", body={})]
        else:
            query: Query = {"limit": limit}
            found = client.ask("GET", "/batches", query)["data"]
    except ApiError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        print_json(found)
        return
    print_table(HEADINGS, map(_row, found))


def _row(batch: Json) -> tuple[object, ...]:
    counts, usage = batch["request_counts"], batch["usage"]
    return (
        *(batch["id"], batch["status"], batch["model"], batch["endpoint"]),
        *(counts["completed"], counts["failed"], counts["total"]),
        *(usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]),
        *(usage["output_tokens"], shown_time(batch["created_at"])),
        shown_time(batch["expires_at"]),
    )
