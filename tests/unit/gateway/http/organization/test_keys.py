"""Keys through the admin API: shown once, two at a time, and gone when deleted."""

from typing import Any

import openai
from sqlalchemy import Connection, select

from gateway.identity.api_key import key_hash
from gateway.store.directory import directory
from gateway.store.tables import api_keys, metadata
from tests.unit.gateway.http.organization.admin_api import NOW_S, AdminApi


def everything(connection: Connection) -> str:
    """All rows of all tables, as text."""
    rows = [row for t in metadata.sorted_tables for row in connection.execute(select(t))]
    return "\n".join(map(str, rows))


async def test_the_secret_is_in_no_other_answer_and_not_in_the_database(api: AdminApi) -> None:
    """Only the answer that creates a key has it; its hash and its end are kept."""
    project = await api.create_project()
    account = await api.create_account(project)
    _, admin = await api.ask("POST", "/admin_api_keys", {"name": "ops"})
    secrets = [account["api_key"]["value"], admin["value"]]

    answers = [
        await api.ask("GET", path)
        for path in (
            f"/projects/{project}/api_keys",
            f"/projects/{project}/api_keys/{account['api_key']['id']}",
            *("/admin_api_keys", f"/admin_api_keys/{admin['id']}", "/audit_logs"),
        )
    ]
    kept = await api.database.read(everything)

    assert all(status == 200 for status, _ in answers)
    for secret in secrets:
        assert len(secret) >= 46  # 256 bits
        assert secret not in str(answers) + kept
        assert secret[-4:] in str(answers)
    hashes = await api.database.read(lambda c: c.scalars(select(api_keys.c.hash)).all())
    assert [*hashes] == [key_hash(secrets[0].encode())]


async def test_an_owner_has_two_valid_keys_at_most(api: AdminApi) -> None:
    """One in use, one that replaces it: a third needs that one is deleted or has expired."""
    project = await api.create_project()
    account = await api.create_account(project)
    keys = f"/projects/{project}/service_accounts/{account['id']}/api_keys"

    _, second = await api.ask("POST", keys, {"name": "second"})
    refused, answer = await api.ask("POST", keys, {"name": "third"})
    await api.ask("DELETE", f"/projects/{project}/api_keys/{second['id']}")
    accepted, _ = await api.ask("POST", keys, {"name": "third"})

    assert (refused, answer["error"]["code"], accepted) == (400, "too_many_keys", 200)


async def test_keys_expire_when_they_are_told_to(api: AdminApi) -> None:
    """The time counts from the request, and routers learn it."""
    project = await api.create_project()
    account = await api.create_account(project)
    key = f"/projects/{project}/api_keys/{account['api_key']['id']}"

    _, changed = await api.ask("POST", key, {"expires_in_seconds": 90})
    found = await api.database.read(directory)

    assert changed["expires_at"] == NOW_S + 90
    assert [each.expires_s for each in found.keys] == [NOW_S + 90]


async def test_a_key_may_be_for_some_models(client: openai.AsyncOpenAI) -> None:
    """An extra field, where a key is created and where it is changed."""
    organization = client.admin.organization
    project = await organization.projects.create(name="p")
    account = await organization.projects.service_accounts.create(
        project.id, name="bot", extra_body={"models": ["org/large"]}
    )
    assert account.api_key is not None
    key = await organization.projects.api_keys.update(
        account.api_key.id, project_id=project.id, extra_body={"models": ["small"]}
    )
    assert account.api_key.model_extra == {"models": ["org/large"]}
    assert key.model_extra == {"models": ["small"]}


async def test_scopes_are_refused(api: AdminApi) -> None:
    """They would promise what the gateway does not hold; an empty list promises nothing."""
    project = await api.create_project()
    account = await api.create_account(project)
    keys = f"/projects/{project}/service_accounts/{account['id']}/api_keys"
    status, answer = await api.ask("POST", keys, {"scopes": ["api.all.read"]})
    assert (status, answer["error"]["param"]) == (400, "scopes")
    assert (await api.ask("POST", keys, {"scopes": []}))[0] == 200


async def test_keys_go_with_their_owner(api: AdminApi) -> None:
    """A deleted service account, a removed member and a deleted user leave no valid key."""
    project = await api.create_project()
    account = await api.create_account(project)
    members = f"/projects/{project}/users"
    people = []
    for name in ("a", "b"):
        _, person = await api.ask("POST", members, {"role": "member", "email": f"{name}@x.org"})
        status, _ = await api.ask("POST", f"{members}/{person['id']}/api_keys", {})
        people.append(person["id"])
        assert status == 200
    assert len((await api.database.read(directory)).keys) == 3

    await api.ask("DELETE", f"/projects/{project}/service_accounts/{account['id']}")
    await api.ask("DELETE", f"{members}/{people[0]}")
    await api.ask("DELETE", f"/users/{people[1]}")

    assert (await api.database.read(directory)).keys == ()
    assert (await api.ask("GET", f"/projects/{project}/api_keys"))[1]["data"] == []


async def test_an_archived_project_has_no_valid_keys(api: AdminApi) -> None:
    """Neither it nor its keys are in the directory any more."""
    project = await api.create_project()
    await api.create_account(project)
    await api.ask("POST", f"/projects/{project}/archive")
    found = await api.database.read(directory)
    assert (found.projects, found.keys) == ((), ())


Body = dict[str, Any] | None
PLACES: list[tuple[str, str, Body]] = [
    ("GET", "/service_accounts/{account}", None),
    ("POST", "/service_accounts/{account}", {"name": "x"}),
    ("DELETE", "/service_accounts/{account}", None),
    ("POST", "/service_accounts/{account}/api_keys", {}),
    ("GET", "/api_keys/{key}", None),
    ("POST", "/api_keys/{key}", {"expires_in_seconds": 1}),
    ("DELETE", "/api_keys/{key}", None),
    ("POST", "/rate_limits/rl-*@{key}", {"max_requests_per_1_minute": 1}),
    ("DELETE", "/rate_limits/rl-*@{key}", None),
    (
        "POST",
        "/spend_limit",
        {"currency": "USD", "interval": "day", "threshold_amount": 1, "api_key_id": "{key}"},
    ),
    ("GET", "/users/{user}", None),
    ("POST", "/users/{user}", {"role": "owner"}),
    ("DELETE", "/users/{user}", None),
    ("POST", "/users/{user}/api_keys", {}),
    ("GET", "/spend_alerts/{alert}", None),
    ("DELETE", "/spend_alerts/{alert}", None),
]


async def test_objects_of_another_project_are_not_found(api: AdminApi) -> None:
    """404 under the wrong project, and nothing changes."""
    mine, other = await api.create_project("mine"), await api.create_project("other")
    account = await api.create_account(mine)
    _, user = await api.ask("POST", f"/projects/{mine}/users", {"role": "member", "email": "a@b"})
    channel = {"type": "email", "recipients": ["a@b"]}
    alert = {"currency": "USD", "interval": "month", "threshold_amount": 1}
    _, made = await api.ask(
        "POST", f"/projects/{mine}/spend_alerts", alert | {"notification_channel": channel}
    )
    ids = {"account": account["id"], "key": account["api_key"]["id"]}
    ids |= {"user": user["id"], "alert": made["id"]}
    before = await api.database.read(everything)

    for method, path, body in PLACES:
        asked = body and {**body}
        if asked and "api_key_id" in asked:
            asked["api_key_id"] = ids["key"]
        status, answer = await api.ask(method, f"/projects/{other}{path.format(**ids)}", asked)
        assert (status, answer["error"]["code"]) == (404, "not_found"), (method, path)

    assert await api.database.read(everything) == before
