"""`gateway projects`: creates, lists, changes and archives the projects of a running gateway."""

from typing import Annotated

import typer

from gateway.commands.admin_client import AdminClient, path_part
from gateway.commands.api_client import Json
from gateway.commands.console import (
    DEFAULT_ADDRESS,
    AsJson,
    Url,
    admin_client,
    print_json,
    print_new_key,
    print_table,
    project_id,
    shown_limit,
    shown_list,
    shown_time,
)
from gateway.commands.keys import DEFAULT_OWNER

ANY_MODEL = "*"
CENTS = 100

app = typer.Typer(no_args_is_help=True, help="Projects of a running gateway.")

Project = Annotated[str, typer.Argument(help="Id or name of a project.")]
Weight = Annotated[
    float | None, typer.Option(help="Share of a busy model's time, relative to other projects.")
]
CacheScope = Annotated[
    str | None,
    typer.Option(help="Who shares cached prefixes: project, key, group:NAME or all."),
]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="A model that it may use; repeat for several.")
]


@app.command("create")
def create(  # noqa: PLR0913 - each is an option of the command
    name: Annotated[str, typer.Argument(help="Name; several projects may have the same.")],
    *,
    with_key: Annotated[bool, typer.Option("--with-key", help="Create an API key, too.")] = False,
    weight: Weight = None,
    cache_scope: CacheScope = None,
    models: Models = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Create a project and, if wanted, its first API key."""
    body = {"name": name, **_settings(weight, cache_scope, models)}
    with admin_client(url) as client:
        project = client.post("/projects", body)
        key: Json | None = None
        if with_key:
            account = {"name": DEFAULT_OWNER}
            key = client.post(f"/projects/{project['id']}/service_accounts", account)["api_key"]
    if as_json:
        print_json(project if key is None else {**project, "api_key": key})
        return
    typer.echo(f"project {project['id']}")
    if key is not None:
        print_new_key(key, as_json=False)


@app.command("list")
def list_projects(
    *,
    archived: Annotated[bool, typer.Option("--archived", help="List archived ones, too.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """List projects."""
    with admin_client(url) as client:
        query = {"include_archived": "true"} if archived else {}
        found = list(client.list_all("/projects", query))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "name", "status", "weight", "cache scope", "models", "created"),
        (
            (
                *(each["id"], each["name"], each["status"]),
                *(f"{each['weight']:g}", each["cache_scope"]),
                *(shown_list(each["models"]), shown_time(each["created_at"])),
            )
            for each in found
        ),
    )


@app.command("update")
def update(  # noqa: PLR0913 - each is an option of the command
    project: Project,
    *,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    weight: Weight = None,
    cache_scope: CacheScope = None,
    models: Models = None,
    all_models: Annotated[
        bool, typer.Option("--all-models", help="Let it use all models.")
    ] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Change a project's name or settings."""
    body = _settings(weight, cache_scope, models)
    if name is not None:
        body["name"] = name
    if all_models:
        body["models"] = None
    with admin_client(url) as client:
        changed = client.post(f"/projects/{project_id(client, project)}", body)
    if as_json:
        print_json(changed)
    else:
        typer.echo(f"project {changed['id']} changed")


@app.command("archive")
def archive(project: Project, *, url: Url = DEFAULT_ADDRESS) -> None:
    """Archive a project for good: its keys are invalid from now on."""
    with admin_client(url) as client:
        archived = client.post(f"/projects/{project_id(client, project)}/archive")
    typer.echo(f"project {archived['id']} archived")


@app.command("limits")
def limits(  # noqa: PLR0913 - each is an option of the command
    project: Project,
    *,
    model: Annotated[str, typer.Option(help="Model that it is for; * for all together.")] = "*",
    key: Annotated[str | None, typer.Option(help="Id of the one key that it is for.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=0)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=0)] = None,
    concurrent_requests: Annotated[int | None, typer.Option(min=0)] = None,
    batch_tokens_per_day: Annotated[int | None, typer.Option(min=0)] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove these limits.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Set a project's rate limits for a model, or print all that it has."""
    given = {
        "max_requests_per_1_minute": requests_per_minute,
        "max_tokens_per_1_minute": tokens_per_minute,
        "max_concurrent_requests": concurrent_requests,
        "batch_1_day_max_input_tokens": batch_tokens_per_day,
    }
    body = {name: value for name, value in given.items() if value is not None}
    with admin_client(url) as client:
        path = f"/projects/{project_id(client, project)}/rate_limits"
        place = f"{path}/{_limit_id(model, key)}"
        if remove:
            client.delete(place)
        elif body:
            client.post(place, body)
        found = list(client.list_all(path))
    if as_json:
        print_json(found)
    else:
        _print_limits(found)


@app.command("spend")
def spend(
    project: Project,
    *,
    per: Annotated[str, typer.Option(help="day or month.")] = "month",
    limit: Annotated[
        float | None, typer.Option(min=0, help="Set the limit, in units of the currency.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the limit.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Set, print or remove the most that a project may spend in a day or month."""
    with admin_client(url) as client:
        path = f"/projects/{project_id(client, project)}/spend_limit"
        if remove:
            client.delete(f"{path}?interval={path_part(per)}")
            typer.echo("removed")
            return
        found = _spend_limit(client, path, per, limit)
    if as_json:
        print_json(found)
        return
    spent, most = found["spent_amount"] / CENTS, found["threshold_amount"] / CENTS
    typer.echo(f"{spent:,.2f} of {most:,.2f} spent in this {found['interval']}")


def _spend_limit(client: AdminClient, path: str, per: str, limit: float | None) -> Json:
    if limit is None:
        return client.get(path, {"interval": per})
    cents = round(limit * CENTS)
    return client.post(path, {"currency": "USD", "interval": per, "threshold_amount": cents})


def _settings(
    weight: float | None, cache_scope: str | None, models: list[str] | None
) -> dict[str, object]:
    given = {"weight": weight, "cache_scope": cache_scope, "models": models or None}
    return {name: value for name, value in given.items() if value is not None}


def _limit_id(model: str, key: str | None) -> str:
    written = model.replace("~", "~0").replace("/", "~1")
    return path_part(f"rl-{written}" + (f"@{key}" if key else ""))


def _print_limits(found: list[Json]) -> None:
    print_table(
        ("model", "key", "requests/min", "tokens/min", "at a time", "batch tokens/day"),
        (
            (
                each["model"],
                each["api_key_id"],
                shown_limit(each["max_requests_per_1_minute"]),
                shown_limit(each["max_tokens_per_1_minute"]),
                shown_limit(each["max_concurrent_requests"]),
                shown_limit(each["batch_1_day_max_input_tokens"]),
            )
            for each in found
        ),
    )
