"""Rate and spend limits through the admin API, and what routers get of them."""

import openai

from gateway.http.organization.values import NO_LIMIT
from gateway.identity.project import RateLimit, SpendLimit
from gateway.store.directory import directory
from tests.unit.gateway.http.organization.admin_api import DAY_S, TODAY_S, AdminApi


async def limits_of(api: AdminApi) -> tuple[RateLimit, ...]:
    """Rate limits of the only project, as routers know them."""
    return (await api.database.read(directory)).projects[0].rate_limits


async def test_a_limit_is_for_a_model_whose_name_has_a_slash(client: openai.AsyncOpenAI) -> None:
    """The id writes it as `~1`, and is also understood with the slash; the model may be new."""
    project = await client.admin.organization.projects.create(name="p")
    limits = client.admin.organization.projects.rate_limits

    changed = await limits.update_rate_limit(
        "rl-org/large", project_id=project.id, max_tokens_per_1_minute=100
    )
    listed = [each async for each in limits.list_rate_limits(project.id)]

    again = await limits.update_rate_limit(changed.id, project_id=project.id)
    assert changed == again
    assert (changed.id, changed.model) == ("rl-org~1large", "org/large")
    assert changed.max_requests_per_1_minute == NO_LIMIT
    assert [each.id for each in listed] == ["rl-*", "rl-org~1large"]


async def test_routers_get_what_is_limited_and_nothing_else(api: AdminApi) -> None:
    """Null or the largest number lifts a limit; what limits nothing is not kept."""
    project = await api.create_project()
    key = (await api.create_account(project))["api_key"]["id"]
    limits = f"/projects/{project}/rate_limits"
    await api.ask("POST", f"{limits}/rl-*", {"max_concurrent_requests": 8})
    await api.ask("POST", f"{limits}/rl-m@{key}", {"batch_1_day_max_input_tokens": 9})
    await api.ask("POST", f"{limits}/rl-gone", {"max_requests_per_1_minute": 1})

    await api.ask("POST", f"{limits}/rl-gone", {"max_requests_per_1_minute": NO_LIMIT})

    assert await limits_of(api) == (
        RateLimit(concurrent_requests=8),
        RateLimit(model="m", key=key, batch_tokens_per_day=9),
    )
    await api.ask("DELETE", f"{limits}/rl-*")
    await api.ask("POST", f"{limits}/rl-m@{key}", {"batch_1_day_max_input_tokens": None})
    assert await limits_of(api) == ()


async def test_limits_of_a_key_go_with_it(api: AdminApi) -> None:
    """Those of the project stay."""
    project = await api.create_project()
    key = (await api.create_account(project))["api_key"]["id"]
    path = f"/projects/{project}"
    for limit in ("rl-*", f"rl-*@{key}"):
        await api.ask("POST", f"{path}/rate_limits/{limit}", {"max_requests_per_1_minute": 1})
    money = {"currency": "USD", "interval": "month", "threshold_amount": 1, "api_key_id": key}
    await api.ask("POST", f"{path}/spend_limit", money)

    await api.ask("DELETE", f"{path}/api_keys/{key}")

    assert await limits_of(api) == (RateLimit(requests_per_minute=1),)
    assert (await api.database.read(directory)).projects[0].spend_limits == ()


async def test_a_limit_of_nothing_lets_nothing_through(api: AdminApi) -> None:
    """Zero is a limit."""
    project = await api.create_project()
    await api.ask("POST", f"/projects/{project}/rate_limits/rl-m", {"max_requests_per_1_minute": 0})
    assert await limits_of(api) == (RateLimit(model="m", requests_per_minute=0),)


WRONG: list[tuple[object, str]] = [
    ({"max_requests_per_1_minute": -1}, "max_requests_per_1_minute"),
    ({"max_requests_per_1_minute": 1.5}, "max_requests_per_1_minute"),
    ({"max_requests_per_1_minute": 2**64}, "max_requests_per_1_minute"),
    ({"max_requests_per_1_minute": True}, "max_requests_per_1_minute"),
    ({"max_images_per_1_minute": 1}, "max_images_per_1_minute"),
    ({"max_requests_per_1_day": 1}, "max_requests_per_1_day"),
]
"""Limits that cannot be held, and the field that is wrong."""


async def test_limits_that_cannot_be_held_are_refused(api: AdminApi) -> None:
    """400, and the field is named."""
    project = await api.create_project()
    for body, param in WRONG:
        status, answer = await api.ask("POST", f"/projects/{project}/rate_limits/rl-m", body)
        assert (status, answer["error"]["param"]) == (400, param)


async def test_pages_of_limits_go_both_ways(api: AdminApi) -> None:
    """A place in the list need not exist any more."""
    project = await api.create_project()
    path = f"/projects/{project}/rate_limits"
    for model in "dbca":
        await api.ask("POST", f"{path}/rl-{model}", {"max_requests_per_1_minute": 1})
    await api.ask("DELETE", f"{path}/rl-b")

    async def page(query: str) -> tuple[list[str], bool]:
        _, answer = await api.ask("GET", path, query=query)
        return [each["model"] for each in answer["data"]], answer["has_more"]

    assert await page("limit=2") == (["*", "a"], True)
    assert await page("limit=2&after=rl-b") == (["c", "d"], False)
    assert await page("limit=2&before=rl-d") == (["a", "c"], True)


async def test_a_spend_limit_tells_whether_it_refuses_requests(api: AdminApi) -> None:
    """What has been spent since the period began is compared with it, for the project or a key."""
    project = await api.create_project()
    key = (await api.create_account(project))["api_key"]["id"]
    path = f"/projects/{project}/spend_limit"
    cent = 10**7
    await api.add_usage(values={"project": project, "key": key, "cost_nano": 70 * cent})
    await api.add_usage(TODAY_S - DAY_S, {"project": project, "key": "", "cost_nano": 50 * cent})
    limit = {"currency": "USD", "threshold_amount": 100}

    _, month = await api.ask("POST", path, limit | {"interval": "month"})
    _, day = await api.ask("POST", path, limit | {"interval": "day"})
    _, of_key = await api.ask("POST", path, limit | {"interval": "month", "api_key_id": key})
    found = (await api.database.read(directory)).projects[0].spend_limits

    assert (month["spent_amount"], month["enforcement"]["status"]) == (120, "enforcing")
    assert (day["spent_amount"], day["enforcement"]["status"]) == (70, "inactive")
    assert (of_key["spent_amount"], of_key["api_key_id"]) == (70, key)
    assert set(found) == {
        SpendLimit(amount_nano=100 * cent, interval="month"),
        SpendLimit(amount_nano=100 * cent, interval="day"),
        SpendLimit(amount_nano=100 * cent, interval="month", key=key),
    }
    assert (await api.ask("DELETE", path, query="interval=day"))[0] == 200
    assert (await api.ask("GET", path, query="interval=day"))[0] == 404
    assert (await api.ask("GET", path))[0] == 200


async def test_alerts_reach_routers_as_limits_that_refuse_nothing(api: AdminApi) -> None:
    """Routers may warn of them."""
    project = await api.create_project()
    channel = {"type": "email", "recipients": ["a@example.com"], "subject_prefix": "LLM"}
    alert = {"currency": "USD", "interval": "month", "threshold_amount": 3}
    await api.ask(
        "POST", f"/projects/{project}/spend_alerts", alert | {"notification_channel": channel}
    )
    found = (await api.database.read(directory)).projects[0].spend_limits
    assert found == (SpendLimit(amount_nano=30_000_000, is_hard=False),)
