"""`gateway top`: all models and replicas of a running gateway, live."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.commands.api_client import ApiClient, ApiError, Json
from gateway.commands.console import DEFAULT_ADDRESS, UP, Url, operator_client, plain_console

REFRESH_S = 1.0
STYLES = {
    "ready": "green",
    "scaled_to_zero": "dim",
    "starting": "yellow",
    "draining": "yellow",
    "no_telemetry": "yellow",
}
BAD = "red"
MODEL_COLUMNS = ("model", "replica", "state")
NUMBERS = ("running", "waiting", "queued", "tokens/s", "prompt/s", "hits", "KV", "errors")
LAST = "last error, or why"
DASH = "-"


def top(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Print once; so it is without a terminal.")
    ] = False,
    interval: Annotated[
        float, typer.Option(help="Seconds between two looks.", min=0.1)
    ] = REFRESH_S,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Show all models and replicas of a running gateway, every second.

    Tokens and hits are those of requests that ended in the last 15 seconds: `tokens/s` of answers,
    `prompt/s` of prompts, `hits` the part of prompts that was found in the KV cache. `running` and
    `waiting` are at the engine, `queued` in routers; `KV` is the part of the cache that running
    requests use. Ctrl-C ends it.
    """
    client = operator_client(url)
    if once or not sys.stdout.isatty():
        try:
            view = _view(client)
        except ApiError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
        plain_console().print(view)
        return
    try:
        _follow(client, interval)
    except KeyboardInterrupt:
        return


def _follow(client: ApiClient, interval_s: float) -> None:
    with Live(console=plain_console(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                view = _view(client)
            except ApiError as error:
                view = Group(Text(str(error), style=BAD))
            live.update(view, refresh=True)
            time.sleep(interval_s)  # noqa: TID251 - no event loop runs here


def _view(client: ApiClient) -> Group:
    """What all routers say now.

    Raises:
        ApiError: the gateway cannot be asked.
    """
    models, replicas = client.ask("GET", "/models"), client.ask("GET", "/replicas")
    lines = [Text(_headline(client.url, models, replicas["data"]))]
    lines += [
        Text(f"router {router} does not answer", style=BAD)
        for router in sorted({*models["missing"], *replicas["missing"]})
    ]
    return Group(*lines, _table(models["data"], replicas["data"]))


def _headline(url: str, models: Json, replicas: Sequence[Json]) -> str:
    up = sum(row["state"] in UP for row in models["data"])
    routers = len(models["routers"])
    return (
        f"{url}  {time.strftime('%H:%M:%S')}  {up} of {len(models['data'])} models up,"
        f" {len(replicas)} replicas, {routers} router{'s' * (routers != 1)};"
        f" {sum(row['in_flight'] for row in models['data'])} requests running,"
        f" {sum(row['queued'] + row['awaiting_start'] for row in models['data'])} queued,"
        f" {sum(map(_tokens_per_s, replicas)):,.0f} tokens/s"
    )


def _table(models: Sequence[Json], replicas: Sequence[Json]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=sys.stdout.isatty())
    for name in MODEL_COLUMNS:
        table.add_column(name, overflow="fold")
    for name in NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(LAST, overflow="fold", ratio=1)
    for model in models:
        for cells in _rows(model, [row for row in replicas if row["model"] == model["model"]]):
            table.add_row(*cells)
    return table


def _rows(model: Json, replicas: Sequence[Json]) -> Iterator[Sequence[str | Text]]:
    """Cells of a model's replicas, or of the model itself if it has none, or is not well."""
    if not replicas or model["state"] != "ready":
        waiting = str(model["queued"] + model["awaiting_start"])
        empty = [DASH] * (len(NUMBERS) - 3)
        numbers = (str(model["in_flight"]), DASH, waiting, *empty)
        yield (model["model"], DASH, _state(model["state"]), *numbers, model["reason"])
    for row in replicas:
        yield (row["model"], row["replica"], _state(row["state"]), *_numbers(row), _last(row))


def _numbers(row: Json) -> Iterator[str]:
    recent = row.get("recent")  # a router of the release before does not tell
    yield str(row["running"])
    yield str(row["waiting"])
    yield str(sum(view["queued"] for view in row["routers"]))
    if recent:
        yield f"{_tokens_per_s(row):,.0f}"
        yield f"{recent['prompt_tokens'] / recent['seconds']:,.0f}"
        yield _percent(recent["cached_tokens"], recent["prompt_tokens"])
    else:
        yield from (DASH, DASH, DASH)
    free, size = row["free_kv_tokens"], row["kv_tokens"]
    yield DASH if free is None else _percent(size - free, size)
    yield str(row["errors"])


def _last(row: Json) -> str:
    """The last error at a replica, whichever router saw it."""
    seen = [view["last_error"] for view in row["routers"] if view["last_error"]]
    if not seen:
        return ""
    last = max(seen, key=lambda each: each["at_s"])
    at = time.strftime("%H:%M:%S", time.localtime(last["at_s"]))
    return f"{at} {last['reason']}, {last['action']}: {last['message']}"


def _tokens_per_s(row: Json) -> float:
    recent = row.get("recent")
    return recent["completion_tokens"] / recent["seconds"] if recent else 0.0


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else DASH


def _state(state: str) -> Text:
    return Text(state, style=STYLES.get(state, BAD))
