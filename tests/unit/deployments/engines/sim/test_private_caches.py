"""Two projects, one router, one engine: what a client learns of what another has cached."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.engines.server import EngineServer
from gateway.routing.fleet import ModelState, Replica, ServedModel
from gateway.telemetry.facts import ReplicaMetadata
from gateway.upstream.client import UpstreamClient
from tests.unit.deployments.engines.sim.simulated import chat, engine_with
from tests.unit.projects import ADMIN_KEY, KEY, OTHER_KEY, bearer, project, write_projects
from tests.unit.surface import CHAT, Surface

SECRET = "We shall buy them for nine dollars. " * 40
WRONG = "We shall sell all of it to them now. " * 40
GROUPED = {"cache_scope": "group:science"}


@pytest.fixture
async def surface(upstream: UpstreamClient) -> AsyncIterator[Surface]:
    """A router with one simulated engine."""
    surface = Surface(upstream)
    engine = engine_with()
    server = EngineServer(engine, "127.0.0.1")
    await server.start()
    model = ServedModel("m", created_s=0, state=ModelState.READY)
    surface.fleet.add(model)
    metadata = ReplicaMetadata(
        model="m", host=server.host, port=server.port, key=server.key, facts=engine.facts
    )
    model.replace_replicas([Replica("engine", metadata)])
    surface.router.start()
    yield surface
    await surface.router.close()
    await server.stop()


def authenticate(
    surface: Surface, folder: Path, victim: dict[str, str], spy: dict[str, str]
) -> None:
    """Have the router know two projects."""
    projects = (project("victim", KEY, **victim), project("spy", OTHER_KEY, **spy))
    path = write_projects(folder / "projects.yaml", *projects, admin_keys=(ADMIN_KEY,))
    surface.configure(auth={"projects": [path]})


async def ask(
    surface: Surface, key: str, text: str, *, more: dict[str, str] | None = None, **fields: object
) -> tuple[int, httpx.Headers]:
    """Cached tokens in the usage of an answer, and its headers."""
    async with surface.client() as client:
        headers = {"x-gateway-explain": "1", **bearer(key), **(more or {})}
        body = chat(text, max_tokens=2, **fields)
        response = await client.post(CHAT, json=body, headers=headers)
    assert response.status_code == 200, response.text
    usage: dict[str, Any] = response.json()["usage"]
    return int(usage["prompt_tokens_details"]["cached_tokens"]), response.headers


@pytest.mark.parametrize(
    ("victim", "spy", "is_shared"),
    [
        ({}, {}, False),
        ({"cache_scope": "key"}, {"cache_scope": "key"}, False),
        (GROUPED, {}, False),
        ({}, {"cache_scope": "all"}, False),
        (GROUPED, GROUPED, True),
        ({"cache_scope": "all"}, {"cache_scope": "all"}, True),
    ],
)
async def test_a_right_guess_tells_only_those_who_share(
    surface: Surface, tmp_path: Path, victim: dict[str, str], spy: dict[str, str], is_shared: bool
) -> None:
    """In usage, and in what the router predicts for operators; whatever salt the spy sends."""
    authenticate(surface, tmp_path, victim, spy)
    await ask(surface, KEY, SECRET)
    own, _ = await ask(surface, KEY, SECRET)
    wrong, _ = await ask(surface, OTHER_KEY, WRONG)
    salted, _ = await ask(surface, OTHER_KEY, SECRET, cache_salt="project:victim")
    right, headers = await ask(surface, OTHER_KEY, SECRET, more={"x-gateway-admin-key": ADMIN_KEY})

    assert own > 200
    assert (right > 200) == (int(headers["x-gateway-cached-tokens"]) > 200) == is_shared
    assert right == wrong or is_shared
    assert salted == wrong == 0


async def test_headers_of_a_project_s_answer_are_the_same_for_any_guess(
    surface: Surface, tmp_path: Path
) -> None:
    """Those that say where a request went, and why, are for operators."""
    authenticate(surface, tmp_path, {}, {})
    await ask(surface, KEY, SECRET)
    _, right = await ask(surface, OTHER_KEY, SECRET)
    _, wrong = await ask(surface, OTHER_KEY, WRONG)
    _, shown = await ask(surface, OTHER_KEY, SECRET, more={"x-gateway-admin-key": ADMIN_KEY})

    assert right.keys() == wrong.keys()
    hidden = {"x-gateway-replica", "x-gateway-cached-tokens", "x-gateway-decision"}
    assert shown.keys() - right.keys() == hidden
