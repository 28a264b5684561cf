"""What a project sees of the models, and what it is served."""

from pathlib import Path

import pytest

from gateway.routing.fleet import ModelState
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, answer
from tests.unit.projects import KEY, OTHER_KEY, bearer, project, write_projects
from tests.unit.recorder import KeptRecorder
from tests.unit.surface import CHAT, Surface, script


@pytest.fixture
async def surface(upstream: UpstreamClient, tmp_path: Path, start_engine: StartEngine) -> Surface:
    """A gateway with two models, an alias, and two projects of which one may use one model."""
    small = project("small", KEY, models=["small"])
    path = write_projects(tmp_path / "projects.yaml", small, project("all", OTHER_KEY))
    surface = Surface(upstream, recorder=KeptRecorder())
    surface.configure(
        auth={"projects": [path]},
        aliases={"nick": "small", "big": "large"},
        fallbacks={"small": ["large"]},
    )
    for name in ("small", "large"):
        surface.add(name, await start_engine(script(answer(f'"{name}"'.encode()))))
    return surface


async def names(surface: Surface, key: str) -> list[str]:
    """Models in the list."""
    async with surface.client() as client:
        response = await client.get("/v1/models", headers=bearer(key))
    return [card["id"] for card in response.json()["data"]]


async def test_a_project_sees_only_its_models(surface: Surface) -> None:
    """In the list, and one by one; the other ones are 404."""
    assert await names(surface, KEY) == ["small", "nick"]
    assert await names(surface, OTHER_KEY) == ["small", "large", "nick", "big"]
    async with surface.client() as client:
        for name, status in (("small", 200), ("nick", 200), ("large", 404), ("big", 404)):
            found = await client.get(f"/v1/models/{name}", headers=bearer())
            chat = await client.post(CHAT, json={"model": name}, headers=bearer())
            assert (found.status_code, chat.status_code) == (status, status)
            assert status == 200 or chat.json()["error"]["code"] == "model_not_found"


async def test_requests_do_not_fall_back_to_models_of_others(surface: Surface) -> None:
    """A project gets its model's own error, where another one falls back."""
    surface.fleet.remove(surface.fleet.model("small"))
    async with surface.client() as client:
        fallen = await client.post(CHAT, json={"model": "small"}, headers=bearer(OTHER_KEY))
        refused = await client.post(CHAT, json={"model": "small"}, headers=bearer(KEY))
    assert (fallen.text, refused.status_code) == ('"large"', 404)


@pytest.mark.parametrize(
    ("body", "headers", "served"),
    [
        ({}, {}, None),
        ({"service_tier": "auto"}, {}, "default"),
        ({"service_tier": "flex"}, {}, "flex"),
        ({"service_tier": "priority"}, {}, "default"),
        ({}, {"x-gateway-priority": "batch"}, "flex"),
        ({}, {"x-gateway-priority": "interactive"}, "default"),
    ],
)
async def test_an_answer_names_the_tier_that_was_served(
    surface: Surface, body: dict[str, str], headers: dict[str, str], served: str | None
) -> None:
    """If the request asked for one."""
    async with surface.client() as client:
        content = {"model": "small", **body}
        response = await client.post(CHAT, json=content, headers=bearer() | headers)
    assert response.headers.get("x-gateway-service-tier") == served
    assert response.status_code == 200


async def test_metrics_count_the_project_and_the_tier_that_was_served(surface: Surface) -> None:
    """With labels of few values, whatever clients send."""
    async with surface.client() as client:
        headers = {**bearer(), "x-gateway-priority": "interactive"}
        await client.post(CHAT, json={"model": "small", "service_tier": "flex"}, headers=headers)
        await client.post(CHAT, json={"model": "small"})
    recorder = surface.router.request_metrics.recorder
    assert isinstance(recorder, KeptRecorder)
    labels = ("small", CHAT, "project", "batch", "answered")
    assert recorder.counts["gateway_requests", labels] == 1
    assert recorder.counts["gateway_auth_failures", ("refused",)] == 1


async def test_log_lines_name_the_project(
    surface: Surface, caplog: pytest.LogCaptureFixture
) -> None:
    """By its id, and never the key."""
    surface.fleet.model("small").replace_replicas([])
    surface.fleet.model("small").state = ModelState.UNHEALTHY
    async with surface.client() as client:
        headers = {**bearer(OTHER_KEY), "x-request-id": "mine"}
        await client.post(CHAT, json={"model": "small"}, headers=headers)
    assert "request mine of project proj_" in caplog.text
    assert OTHER_KEY not in caplog.text


async def test_an_unknown_tier_is_refused(surface: Surface) -> None:
    """Instead of being ignored."""
    async with surface.client() as client:
        content = {"model": "small", "service_tier": "gold"}
        response = await client.post(CHAT, json=content, headers=bearer())
    assert (response.status_code, response.json()["error"]["param"]) == (400, "service_tier")
