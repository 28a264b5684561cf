"""`gateway status`: how the models of a running gateway stand, on one screen, and for scripts."""

from collections.abc import Sequence

import typer

from gateway.commands.api_client import ApiClient, ApiError, Json
from gateway.commands.console import (
    DEFAULT_ADDRESS,
    UP,
    AsJson,
    Url,
    operator_client,
    print_json,
    print_plain_table,
)

NOT_READY = 1
UNKNOWN = 2
"""Exit status if the gateway cannot be asked."""


def status(*, as_json: AsJson = False, url: Url = DEFAULT_ADDRESS) -> None:
    """Show how the models of a running gateway stand, and why one is not ready.

    Exit status 0 if all models are ready or scaled to zero and all routers answer, 1 if not, 2 if
    the gateway cannot be asked.
    """
    client = operator_client(url)
    try:
        models, config = client.ask("GET", "/models"), client.ask("GET", "/config")
    except ApiError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNKNOWN) from None
    awaited = [row["model"] for row in models["data"] if row["state"] not in UP]
    missing = sorted({*models["missing"], *config["missing"]})
    is_ready = bool(models["data"]) and not awaited and not missing
    rejected = list(_rejected(config["data"]))
    if as_json:
        print_json(
            {
                "ready": is_ready,
                "models": models["data"],
                "routers": models["routers"],
                "missing_routers": missing,
                "rejected_configs": rejected,
            }
        )
    else:
        _print(client, models, len(awaited), missing, rejected)
    if not is_ready:
        raise typer.Exit(NOT_READY)


def _print(
    client: ApiClient, models: Json, awaited: int, missing: Sequence[str], rejected: Sequence[str]
) -> None:
    rows, routers = models["data"], len(models["routers"])
    up = f"{len(rows) - awaited} of {len(rows)} models up" if rows else "no models"
    typer.echo(f"{client.url}: {up}, {routers} router{'s' * (routers != 1)}")
    if rows:
        print_plain_table(
            ("model", "state", "replicas", "running", "queued", "why"),
            (
                (
                    *(row["model"], row["state"], _replicas(row), row["in_flight"]),
                    *(row["queued"] + row["awaiting_start"], row["reason"]),
                )
                for row in rows
            ),
        )
    for router in missing:
        typer.echo(f"router {router} does not answer")
    for line in rejected:
        typer.echo(line)


def _replicas(row: Json) -> str:
    states = ", ".join(f"{count} {state}" for state, count in row["replica_states"].items())
    return states or str(row["replicas"])


def _rejected(routers: Sequence[Json]) -> Sequence[str]:
    """A line for each config or projects file that a router has rejected."""
    found = []
    for router in routers:
        config = (router["refused"] or {}).get("problems", [])
        for name, problems in (
            ("gateway config", config),
            ("projects file", router["refused_projects"]),
        ):
            if problems:
                lines = "; ".join(line.strip() for line in problems)
                found.append(f"router {router['router']}: {name} rejected: {lines}")
    return found
