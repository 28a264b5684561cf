"""Projects through the admin API: their settings, their lists, and their end."""

import openai

from tests.unit.gateway.http.organization.admin_api import AdminApi

SETTINGS = {
    "weight": 4.0,
    "cache_scope": "group:research",
    "models": ["org/large"],
    "routes": ["/v1/chat/completions", "/tokenize"],
    "tiers": ["flex", "default", "priority"],
    "max_body_mb": 1.5,
}


async def test_the_gateways_settings_are_extra_fields(client: openai.AsyncOpenAI) -> None:
    """OpenAI's client sends them by `extra_body`, and gets them back."""
    projects = client.admin.organization.projects

    created = await projects.create(name="search", extra_body=SETTINGS)
    changed = await projects.update(created.id, extra_body={"weight": 2, "models": None})

    assert created.model_extra == SETTINGS
    assert changed.model_extra == SETTINGS | {"weight": 2.0, "models": None}
    assert (await projects.retrieve(created.id)).model_extra == changed.model_extra


async def test_a_project_has_usable_defaults(api: AdminApi) -> None:
    """A name is enough."""
    _, project = await api.ask("POST", "/projects", {"name": "search"})
    assert {name: project[name] for name in SETTINGS} == {
        "weight": 1.0,
        "cache_scope": "project",
        "models": None,
        "routes": None,
        "tiers": ["flex", "default"],
        "max_body_mb": None,
    }


WRONG: list[tuple[object, str, str]] = [
    ({}, "name", "missing_required_parameter"),
    ({"name": ""}, "name", "invalid_value"),
    ({"name": 7}, "name", "invalid_value"),
    ({"name": "x" * 257}, "name", "invalid_value"),
    ({"name": "a\x00b"}, "name", "invalid_value"),
    ({"name": "x", "weigth": 2}, "weigth", "unknown_parameter"),
    ({"name": "x", "weight": 0}, "weight", "invalid_value"),
    ({"name": "x", "weight": "2"}, "weight", "invalid_value"),
    ({"name": "x", "cache_scope": "mine"}, "cache_scope", "invalid_value"),
    ({"name": "x", "cache_scope": "group:"}, "cache_scope", "invalid_value"),
    ({"name": "x", "cache_scope": "group:a b/c"}, "cache_scope", "invalid_value"),
    ({"name": "x", "routes": ["/gateway/config"]}, "routes.0", "invalid_value"),
    ({"name": "x", "tiers": ["flex", "flex"]}, "tiers", "invalid_value"),
    ({"name": "x", "tiers": ["fast", "default"]}, "tiers.0", "invalid_value"),
    ({"name": "x", "max_body_mb": -1}, "max_body_mb", "invalid_value"),
    ({"name": "x", "geography": "eu"}, "geography", "unknown_parameter"),
]
"""Bodies that create no project, the field that is wrong, and the error's code."""


async def test_what_is_wrong_is_named(api: AdminApi) -> None:
    """400 in OpenAI's envelope, with `param` and `code`."""
    for body, param, code in WRONG:
        status, answer = await api.ask("POST", "/projects", body)
        assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, param, code)


async def test_names_need_not_be_unique(api: AdminApi) -> None:
    """As with OpenAI: the id tells projects apart."""
    assert await api.create_project("same") != await api.create_project("same")


async def test_a_list_can_be_emptied_while_it_is_read(client: openai.AsyncOpenAI) -> None:
    """Each project is listed once, though those before are archived and others are created."""
    projects = client.admin.organization.projects
    made = [(await projects.create(name=f"p{number}")).id for number in range(5)]

    listed = []
    async for project in projects.list(limit=2):
        listed.append(project.id)
        await projects.archive(project.id)
        if len(listed) == 1:
            made.append((await projects.create(name="late")).id)

    assert listed == made
    assert [each async for each in projects.list()] == []
    assert [each.id async for each in projects.list(include_archived=True)] == made


async def test_an_archived_project_cannot_be_changed(api: AdminApi) -> None:
    """It can be read, and archived again without effect; its accounts get no more keys."""
    project = await api.create_project()
    account = await api.create_account(project)
    _, archived = await api.ask("POST", f"/projects/{project}/archive")

    again = await api.ask("POST", f"/projects/{project}/archive")
    assert again == (200, archived)
    for path in (
        *("", "/service_accounts", "/rate_limits/rl-*", "/model_permissions"),
        f"/service_accounts/{account['id']}/api_keys",
    ):
        bodies: dict[str, object] = {"": {"name": "x"}, "/service_accounts": {"name": "x"}}
        body = bodies.get(path, {})
        if path == "/model_permissions":
            body = {"mode": "allow_list", "model_ids": []}
        status, answer = await api.ask("POST", f"/projects/{project}{path}", body)
        assert (status, answer["error"]["code"]) == (400, "project_archived"), path


async def test_a_change_of_nothing_leaves_no_trace(api: AdminApi) -> None:
    """An update that is repeated is not in the audit log again."""
    project = await api.create_project("search", weight=2)

    for _ in range(2):
        await api.ask("POST", f"/projects/{project}", {"weight": 3})

    _, log = await api.ask("GET", "/audit_logs")
    assert [each["type"] for each in log["data"]] == ["project.updated", "project.created"]


async def test_unknown_places_in_lists_are_refused(api: AdminApi) -> None:
    """`after` must be an id of this list, or the page would be wrong."""
    project = await api.create_project()
    other = await api.create_account(await api.create_project())
    for path, after in (
        ("/projects", "proj_unknown"),
        (f"/projects/{project}/service_accounts", other["id"]),
    ):
        status, answer = await api.ask("GET", path, query=f"after={after}")
        assert (status, answer["error"]["param"]) == (400, "after")


async def test_unknown_query_parameters_are_refused(api: AdminApi) -> None:
    """A misspelled filter must not list everything."""
    status, answer = await api.ask("GET", "/projects", query="include_archved=true")
    assert (status, answer["error"]["param"]) == (400, "include_archved")
