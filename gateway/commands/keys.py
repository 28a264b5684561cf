"""`gateway keys`: creates, lists, rotates and deletes the API keys of a running gateway."""

import json
import re
import time
from typing import Annotated

import typer

from gateway.commands.admin_client import AdminClient, path_part
from gateway.commands.api_client import ApiError, Json
from gateway.commands.console import (
    DEFAULT_ADDRESS,
    AsJson,
    Url,
    admin_client,
    print_json,
    print_new_key,
    print_table,
    project_id,
    shown_list,
    shown_time,
)
from gateway.identity.api_key import new_key

DEFAULT_OWNER = "default"
"""Name of the service account that owns keys unless another is named."""
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

app = typer.Typer(no_args_is_help=True, help="API keys.")

OfProject = Annotated[str, typer.Option("--project", help="Id or name of the project.")]
KeyId = Annotated[str, typer.Argument(help="Id of a key.")]


@app.command("new")
def new(*, name: Annotated[str, typer.Option(help="Name of the key, for people.")] = "") -> None:
    """Print a new key for its owner, and its hash for a projects file; needs no gateway."""
    key = new_key()
    named = f", name: {json.dumps(name)}" if name else ""
    typer.echo(key.secret)
    typer.echo(
        "The key above is shown once: give it to its owner. For the projects file:", err=True
    )
    typer.echo(f"- {{hash: {key.hash}{named}}}")


@app.command("create")
def create(  # noqa: PLR0913 - each is an option of the command
    *,
    project: OfProject,
    name: Annotated[str, typer.Option(help="Name of the key.")] = "Secret Key",
    owner: Annotated[
        str, typer.Option(help="Name of the service account that owns it; made if missing.")
    ] = DEFAULT_OWNER,
    expires_in: Annotated[
        str | None, typer.Option(help="Time until it expires, such as 90d, 12h or 30m.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model that it may use; repeat for several."),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Create a key, which is printed this once."""
    body: dict[str, object] = {"name": name, "models": models or None}
    if expires_in is not None:
        body["expires_in_seconds"] = _seconds(expires_in)
    with admin_client(url) as client:
        accounts = f"/projects/{project_id(client, project)}/service_accounts"
        key = client.post(f"{accounts}/{_owner_id(client, accounts, owner)}/api_keys", body)
    print_new_key(key, as_json=as_json)


@app.command("list")
def list_keys(*, project: OfProject, as_json: AsJson = False, url: Url = DEFAULT_ADDRESS) -> None:
    """List a project's keys, without their secrets."""
    with admin_client(url) as client:
        found = list(client.list_all(f"/projects/{project_id(client, project)}/api_keys"))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "name", "key", "owner", "models", "created", "expires", "last used"),
        (
            (
                *(each["id"], each["name"], each["redacted_value"], _owner(each)["name"]),
                shown_list(each["models"]),
                *(shown_time(each[name]) for name in ("created_at", "expires_at", "last_used_at")),
            )
            for each in found
        ),
    )


@app.command("rotate")
def rotate(
    key: KeyId,
    *,
    project: OfProject,
    grace: Annotated[
        str, typer.Option(help="Time for which the old key stays valid, such as 1d or 2h.")
    ] = "1d",
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Create a key of the same owner, and let the old one expire."""
    grace_s = _seconds(grace)
    with admin_client(url) as client:
        path = f"/projects/{project_id(client, project)}"
        old = client.get(f"{path}/api_keys/{path_part(key)}")
        kind = "users" if old["owner"]["type"] == "user" else "service_accounts"
        body = {"name": old["name"], "models": old["models"]}
        made = client.post(f"{path}/{kind}/{_owner(old)['id']}/api_keys", body)
        print_new_key(made, as_json=as_json)  # whatever happens now: it is shown only once
        expires_s = old["expires_at"]
        if expires_s is None or expires_s > time.time() + grace_s:
            client.post(f"{path}/api_keys/{old['id']}", {"expires_in_seconds": grace_s})


@app.command("delete")
def delete(key: KeyId, *, project: OfProject, url: Url = DEFAULT_ADDRESS) -> None:
    """Delete a key: it is refused within a second."""
    with admin_client(url) as client:
        client.delete(f"/projects/{project_id(client, project)}/api_keys/{path_part(key)}")
    typer.echo(f"key {key} deleted")


def _owner_id(client: AdminClient, accounts: str, name: str) -> str:
    found = [each["id"] for each in client.list_all(accounts) if each["name"] == name]
    if len(found) > 1:
        raise ApiError(f"{len(found)} service accounts are named {name!r}")
    if found:
        return str(found[0])
    body = {"name": name, "create_service_account_only": True}
    return str(client.post(accounts, body)["id"])


def _owner(key: Json) -> Json:
    owner: Json = key["owner"]["service_account"] or key["owner"]["user"]
    return owner


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,9})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time such as 90d, 12h, 30m or 60s")
    return int(found[1]) * UNITS[found[2]]
