"""`gateway usage` and `gateway costs`: what a running gateway's projects have used and spent."""

import time
from collections import defaultdict
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer

from gateway.commands.api_client import Json, Query
from gateway.commands.console import (
    DEFAULT_ADDRESS,
    AsJson,
    Url,
    admin_client,
    print_json,
    print_table,
)
from gateway.ledger.calendar import DAY_S

AMOUNTS = {
    "amount": "cost",
    "device_amount": "devices used",
    "idle_amount": "devices idle",
    "wasted_amount": "wasted",
}
"""Amounts in the API, and their headings. The second and third are the cost by reservation."""
KINDS = ("completions", "embeddings", "audio_transcriptions")
COUNTS = (
    *("num_model_requests", "input_tokens", "input_cached_tokens", "output_tokens"),
    "device_seconds",
)


class UsageGroup(StrEnum):
    """What usage is summed by."""

    PROJECT = "project"
    MODEL = "model"
    KEY = "key"
    USER = "user"
    TIER = "tier"


class CostGroup(StrEnum):
    """What costs are summed by."""

    PROJECT = "project"
    ITEM = "item"
    KEY = "key"
    USER = "user"


API_GROUPS = {
    "project": "project_id",
    "model": "model",
    "key": "api_key_id",
    "user": "user_id",
    "tier": "service_tier",
    "item": "line_item",
}
"""Names of groups in the API."""
Days = Annotated[int, typer.Option(min=1, max=3650, help="Days back, today included.")]


def usage(
    *,
    by: Annotated[
        list[UsageGroup] | None,
        typer.Option(help="What to sum by; repeat for several. Default: project and model."),
    ] = None,
    days: Days = 7,
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Print what projects have used."""
    groups = [API_GROUPS[each] for each in by or (UsageGroup.PROJECT, UsageGroup.MODEL)]
    query: Query = {"start_time": _start_s(days), "group_by": groups, "limit": 31}
    with admin_client(url) as client:
        names = {each["id"]: each["name"] for each in client.list_all("/projects", ARCHIVED)}
        found = {kind: list(client.buckets(f"/usage/{kind}", query)) for kind in KINDS}
    if as_json:
        print_json(found)
        return
    sums: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0] * len(COUNTS))
    for result in (each for buckets in found.values() for each in _results(buckets)):
        row = sums[_key(result, groups, names)]
        for index, name in enumerate(COUNTS):
            row[index] += result[name]
    headings = (*groups, "requests", "input tokens", "of them cached", "output tokens", "device s")
    rows = (
        (*key, *(f"{n:,.0f}" for n in row[:-1]), f"{row[-1]:,.1f}")
        for key, row in sorted(sums.items())
    )
    print_table(headings, rows)


def costs(
    *,
    by: Annotated[
        list[CostGroup] | None,
        typer.Option(help="What to sum by; repeat for several. Default: project."),
    ] = None,
    days: Days = 30,
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Print what projects have spent."""
    groups = [API_GROUPS[each] for each in by or (CostGroup.PROJECT,)]
    query: Query = {"start_time": _start_s(days), "group_by": groups, "limit": 180}
    with admin_client(url) as client:
        names = {each["id"]: each["name"] for each in client.list_all("/projects", ARCHIVED)}
        buckets = list(client.buckets("/costs", query))
    if as_json:
        print_json(buckets)
        return
    sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(AMOUNTS))
    for result in _results(buckets):
        row = sums[*_key(result, groups, names), result["amount"]["currency"]]
        for index, name in enumerate(AMOUNTS):
            row[index] += (result[name] or {"nano": 0})["nano"]
    print_table(
        [*groups, *AMOUNTS.values(), "currency"],
        (
            (*key[:-1], *(f"{nano / 1e9:,.6f}" for nano in row), key[-1])
            for key, row in sorted(sums.items())
        ),
    )


ARCHIVED = {"include_archived": "true"}


def _start_s(days: int) -> int:
    now_s = int(time.time())
    return now_s - now_s % DAY_S - (days - 1) * DAY_S


def _results(buckets: Iterable[Json]) -> Iterable[Json]:
    return (each for bucket in buckets for each in bucket["results"])


def _key(result: Json, groups: list[str], names: dict[str, str]) -> tuple[str, ...]:
    """What a result is the sum for; a project by its name and id."""
    values = [str(result[group] or "-") for group in groups]
    return tuple(f"{names[each]} ({each})" if each in names else each for each in values)
