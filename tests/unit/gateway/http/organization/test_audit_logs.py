"""The audit log: who changed what and when, and how entries are found."""

import openai

from tests.unit.gateway.http.organization.admin_api import NOW_S, AdminApi


async def test_entries_say_who_changed_what(client: openai.AsyncOpenAI, api: AdminApi) -> None:
    """The actor, the project, and the values before and after; newest first."""
    project = await api.create_project("search", weight=2)
    api.actor = "ops@example.com"
    await api.ask("POST", f"/projects/{project}", {"name": "other"})

    updated, created = (await client.admin.organization.audit_logs.list()).data

    assert (created.type, updated.type) == ("project.created", "project.updated")
    assert created.effective_at == NOW_S
    assert created.actor is not None
    assert created.actor.api_key is not None
    assert created.actor.api_key.id == "key_admin"
    assert updated.actor is not None
    assert updated.actor.session is not None
    assert updated.actor.session.user is not None
    assert updated.actor.session.user.id == "ops@example.com"
    assert updated.project is not None
    assert (updated.project.id, updated.project.name) == (project, "other")
    assert updated.project_updated is not None
    extra = updated.project_updated.model_extra or {}
    assert (extra["before"]["name"], extra["after"]["name"]) == ("search", "other")
    requested = updated.project_updated.changes_requested
    assert requested is not None
    assert requested.model_extra == {"name": "other"}


async def test_changes_of_limits_have_the_apis_names(api: AdminApi) -> None:
    """`changes_requested` is what OpenAI's type has there."""
    project = await api.create_project()
    path = f"/projects/{project}/rate_limits/rl-m"
    await api.ask("POST", path, {"max_tokens_per_1_minute": 5})
    await api.ask("DELETE", path)
    _, log = await api.ask("GET", "/audit_logs", query="resource_ids[]=rl-m")
    deleted, updated = log["data"]
    assert deleted["type"] == "rate_limit.deleted"
    assert updated["rate_limit.updated"]["changes_requested"] == {"max_tokens_per_1_minute": 5}


async def test_entries_are_found_by_what_they_say(api: AdminApi) -> None:
    """Each filter narrows the log, and all of them together."""
    first, second = await api.create_project("first"), await api.create_project("second")
    await api.create_account(first)
    api.actor = "other"
    await api.ask("POST", f"/projects/{second}/archive")

    async def found(query: str) -> list[tuple[str, str | None]]:
        _, log = await api.ask("GET", "/audit_logs", query=query)
        return [(each["type"], (each["project"] or {}).get("id")) for each in log["data"]]

    archived = ("project.archived", second)
    assert await found("actor_ids[]=other") == [archived]
    assert await found("actor_emails[]=other") == [archived]
    assert await found("event_types[]=project.archived&event_types[]=x") == [archived]
    assert await found(f"project_ids[]={second}") == [archived, ("project.created", second)]
    assert await found(f"resource_ids[]={second}&event_types[]=project.archived") == [archived]
    assert await found(f"effective_at[gte]={NOW_S:.0f}&limit=1") == [archived]
    assert await found(f"effective_at[gt]={NOW_S:.0f}") == []
    assert len(await found(f"effective_at[lte]={NOW_S:.0f}")) == 5
    assert await found(f"effective_at[lt]={NOW_S:.0f}") == []


async def test_the_log_goes_both_ways(api: AdminApi) -> None:
    """`after` leads to older entries, `before` back to newer ones."""
    for number in range(5):
        await api.create_project(f"p{number}")
    _, newest = await api.ask("GET", "/audit_logs", query="limit=2")
    _, older = await api.ask("GET", "/audit_logs", query=f"limit=2&after={newest['last_id']}")
    _, back = await api.ask("GET", "/audit_logs", query=f"limit=2&before={older['first_id']}")

    names = [each["project"]["name"] for page in (newest, older) for each in page["data"]]
    assert names == ["p4", "p3", "p2", "p1"]
    assert back["data"] == newest["data"]


async def test_a_refused_change_is_not_logged(api: AdminApi) -> None:
    """The entry is part of the change's transaction."""
    await api.ask("POST", "/projects/proj_unknown", {"name": "x"})
    await api.ask("POST", "/projects", {"name": ""})
    assert (await api.ask("GET", "/audit_logs"))[1]["data"] == []
