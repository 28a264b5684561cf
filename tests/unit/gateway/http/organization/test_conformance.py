"""OpenAI's own admin client works with the gateway: all its methods, and all its types."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import openai
import pytest
from pydantic import BaseModel, TypeAdapter

from gateway.http.organization.usage import EMPTY_KINDS
from tests.unit.gateway.http.organization.admin_api import TODAY_S, AdminApi

UNSUPPORTED = {
    "certificates": "no client certificates",
    "data_retention": "no prompts and no answers",
    "external_keys": "stores nothing",
    "external_storage": "stores no files",
    "groups": "no groups",
    "invites": "sends no invitations",
    "projects.certificates": "no client certificates",
    "projects.data_retention": "no prompts and no answers",
    "projects.groups": "no groups",
    "projects.hosted_tool_permissions": "hosts no tools",
    "projects.roles": "no roles",
    "projects.users.roles": "no roles",
    "roles": "no roles",
    "spend_alerts": "belong to projects",
    "spend_limit": "belong to projects",
    "users.roles": "no roles",
    "workload_identity_providers": "in the gateway config",
}
"""Beginnings of the names of methods that are refused, and of the reason that the answer gives."""
USAGE = {f"usage.{kind}" for kind in ("completions", "embeddings", "audio_transcriptions")}
USAGE |= {f"usage.{kind}" for kind in EMPTY_KINDS}
CHANNEL = {"type": "email", "recipients": ["a@example.com"]}
ALERT = {"currency": "USD", "interval": "month", "threshold_amount": 1000}
ALERT |= {"notification_channel": CHANNEL}
SPEND = {"currency": "USD", "interval": "month", "threshold_amount": 1000}

OPTIONS = {"extra_headers", "extra_query", "extra_body", "timeout"}
"""Arguments of all methods."""

Call = Callable[..., Awaitable[Any]]


def methods(resource: object, place: str = "") -> Iterator[tuple[str, Call]]:
    """All methods of OpenAI's admin client below a resource, by their dotted names."""
    for name in dir(type(resource)):
        found = inspect.getattr_static(type(resource), name)
        if name.startswith(("_", "with_")):
            continue
        if inspect.isfunction(found):
            yield f"{place}{name}", getattr(resource, name)
        else:
            yield from methods(getattr(resource, name), f"{place}{name}.")


def organization_methods() -> dict[str, Call]:
    """All methods of `client.admin.organization`."""
    client = openai.AsyncOpenAI(admin_api_key="x", base_url="http://gateway/v1")
    return dict(methods(client.admin.organization))


def refusal(name: str) -> str:
    """Why a method is refused; empty if it is not."""
    found = [p for p in UNSUPPORTED if name.startswith(f"{p}.")]
    return UNSUPPORTED[max(found, key=len)] if found else ""


ALL_METHODS = organization_methods()
SUPPORTED = {name for name in ALL_METHODS if not refusal(name)}


def answer_type(method: Call) -> Any:
    """Type of a method's answer; of a list, that of its pages."""
    found = get_type_hints(inspect.unwrap(method))["return"]
    return get_args(found)[1] if get_args(found) else found


async def ask(client: openai.AsyncOpenAI, name: str, /, *args: str, **params: object) -> Any:
    """Call a method, and check its answer against its type, without any conversion."""
    resource: Any = client.admin.organization
    *path, last = name.split(".")
    for part in path:
        resource = getattr(resource, part)
    response = await getattr(resource.with_raw_response, last)(*args, **params)
    found = answer_type(getattr(resource, last))
    answer: BaseModel = TypeAdapter(found).validate_json(response.content, strict=True)
    return answer


class Tour:
    """Calls methods with what earlier calls have made, and remembers which."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client
        self.called: set[str] = set()

    async def __call__(self, name: str, /, *args: str, **params: object) -> Any:
        """Call a method; its answer has been checked."""
        self.called.add(name)
        return await ask(self._client, name, *args, **params)


async def tour_of_projects(call: Tour) -> str:
    """Projects and their settings; returns a project's id."""
    project: str = (await call("projects.create", name="search")).id
    in_project: dict[str, Any] = {"project_id": project}
    assert (await call("projects.retrieve", project)).name == "search"
    assert (await call("projects.update", project, name="other")).name == "other"
    assert [each.id for each in (await call("projects.list")).data] == [project]
    permitted = {"mode": "allow_list", "model_ids": ["large"]}
    await call("projects.model_permissions.update", project, **permitted)
    assert (await call("projects.model_permissions.retrieve", project)).api_model_ids == ["large"]
    assert (await call("projects.model_permissions.delete", project)).deleted
    await call("projects.service_tier_settings.update", project, enabled_tiers=["fast"])
    tiers = await call("projects.service_tier_settings.retrieve", project)
    assert tiers.enabled_tiers == ["fast"]
    limit = (await call("projects.rate_limits.list_rate_limits", project)).data[0]
    limits = {"max_requests_per_1_minute": 5, "batch_1_day_max_input_tokens": 7}
    changed = await call("projects.rate_limits.update_rate_limit", limit.id, **in_project, **limits)
    assert (changed.max_requests_per_1_minute, changed.batch_1_day_max_input_tokens) == (5, 7)
    await call("projects.spend_limit.update", project, **SPEND)
    assert (await call("projects.spend_limit.retrieve", project)).threshold_amount == 1000
    assert (await call("projects.spend_limit.delete", project)).deleted
    alert = await call("projects.spend_alerts.create", project, **ALERT)
    await call("projects.spend_alerts.update", alert.id, **in_project, **ALERT)
    await call("projects.spend_alerts.retrieve", alert.id, **in_project)
    assert len((await call("projects.spend_alerts.list", project)).data) == 1
    assert (await call("projects.spend_alerts.delete", alert.id, **in_project)).deleted
    return project


async def tour_of_keys(call: Tour, project: str) -> None:
    """Service accounts, users and all kinds of keys."""
    in_project: dict[str, Any] = {"project_id": project}
    accounts = "projects.service_accounts"
    account = await call(f"{accounts}.create", project, name="bot", expires_in_seconds=60)
    assert account.api_key.value.startswith("sk-")
    await call(f"{accounts}.retrieve", account.id, **in_project)
    await call(f"{accounts}.update", account.id, **in_project, name="other", role="owner")
    assert len((await call(f"{accounts}.list", project)).data) == 1
    second = await call(f"{accounts}.api_keys.create", account.id, **in_project, name="second")
    keys = await call("projects.api_keys.list", project)
    assert [each.id for each in keys.data] == [account.api_key.id, second.id]
    key = await call("projects.api_keys.retrieve", second.id, **in_project)
    assert key.owner.service_account.id == account.id
    await call("projects.api_keys.update", second.id, **in_project, expires_in_seconds=60)
    assert (await call("projects.api_keys.delete", second.id, **in_project)).deleted
    assert (await call(f"{accounts}.delete", account.id, **in_project)).deleted

    member = await call("projects.users.create", project, role="member", email="a@example.com")
    await call("projects.users.retrieve", member.id, **in_project)
    await call("projects.users.update", member.id, **in_project, role="owner")
    assert len((await call("projects.users.list", project)).data) == 1
    assert (await call("projects.users.delete", member.id, **in_project)).deleted
    assert (await call("users.retrieve", member.id)).email == "a@example.com"
    assert (await call("users.update", member.id, role="owner")).role == "owner"
    assert len((await call("users.list", emails=["a@example.com"])).data) == 1
    assert (await call("users.delete", member.id)).deleted

    admin = await call("admin_api_keys.create", name="ops", expires_in_seconds=60)
    assert admin.value.startswith("sk-admin-")
    await call("admin_api_keys.retrieve", admin.id)
    assert len((await call("admin_api_keys.list", order="desc")).data) == 1
    assert (await call("admin_api_keys.delete", admin.id)).deleted


async def tour_of_usage(call: Tour, api: AdminApi, project: str) -> None:
    """Usage of all kinds, and costs."""
    used: dict[str, object] = {
        "project": project,
        "key": "k",
        "user": "u",
        "prompt_tokens": 9,
        "cached_tokens": 4,
    }
    await api.add_usage(values=used | {"completion_tokens": 3, "cost_nano": 5, "tier": "flex"})
    await api.add_usage(values=used | {"endpoint": "/v1/embeddings"})
    await api.add_usage(values=used | {"endpoint": "/v1/audio/transcriptions"})
    for name in sorted(USAGE):
        page = await call(name, start_time=TODAY_S, bucket_width="1d", limit=2)
        results = [each.object for bucket in page.data for each in bucket.results]
        kind = name.removeprefix("usage.")
        has_any = kind not in EMPTY_KINDS
        assert results == ([f"organization.usage.{kind}.result"] if has_any else [])
    costs = await call("usage.costs", start_time=TODAY_S, group_by=["project_id", "line_item"])
    assert [each.line_item for each in costs.data[0].results] == ["large, tokens"]


async def test_every_method_answers_with_its_own_type(
    client: openai.AsyncOpenAI, api: AdminApi
) -> None:
    """No required field is missing, and none has another type, of any method that is not refused.

    Methods are found by introspection: one that a later client adds fails this test.
    """
    call = Tour(client)

    project = await tour_of_projects(call)
    await tour_of_keys(call, project)
    await tour_of_usage(call, api, project)
    logs = await call("audit_logs.list", limit=100)
    assert logs.data[-1].type == "project.created"
    assert (await call("projects.archive", project)).status == "archived"

    assert call.called == SUPPORTED


async def test_other_methods_say_why_they_are_refused(client: openai.AsyncOpenAI) -> None:
    """404 `unsupported`, in OpenAI's envelope, whatever the arguments."""
    for name in sorted(ALL_METHODS.keys() - SUPPORTED):
        names = inspect.signature(ALL_METHODS[name]).parameters.keys() - OPTIONS
        resource: Any = client.admin.organization
        for part in name.split("."):
            resource = getattr(resource, part)
        with pytest.raises(openai.NotFoundError) as refused:
            await resource(**dict.fromkeys(names, "x"))
        assert refused.value.code == "unsupported", name
        assert refusal(name) in refused.value.message


def test_every_reason_is_needed() -> None:
    """No reason is listed for methods that the client does not have."""
    assert {reason for name in ALL_METHODS if (reason := refusal(name))} == {*UNSUPPORTED.values()}


def test_the_reference_names_what_is_refused() -> None:
    """Each of OpenAI's resources that the gateway has not, by its last name."""
    page = (Path(__file__).parents[5] / "docs" / "reference.md").read_text()
    chapter = page.partition("## Admin API")[2].partition("\n## ")[0]
    assert [name for name in UNSUPPORTED if f"`{name.split('.')[-1]}`" not in chapter] == []
