"""Tokens of identity providers on the whole surface."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, answer
from tests.unit.projects import KEY, bearer, project, write_projects
from tests.unit.surface import Surface, script
from tests.unit.tokens import AUDIENCE, ISSUER, claims, key_set, signed, signing_key


@pytest.fixture
async def surface(
    upstream: UpstreamClient, tmp_path: Path, start_engine: StartEngine
) -> AsyncIterator[Surface]:
    """A gateway with a project, and with a provider whose keys are at a URL."""
    path = write_projects(tmp_path / "projects.yaml", project("search", KEY))
    provider = await start_engine(script(answer(key_set(signing_key("RS256")))))
    host, port = provider.address
    issuer = {
        "name": "idp",
        "issuer": ISSUER,
        "audience": [AUDIENCE],
        "algorithms": ["RS256"],
        "jwks": f"http://{host}:{port}/keys",
        "project_claim": "project",
        "admin_claim": "roles",
        "admins": ["ops"],
    }
    surface = Surface(upstream)
    surface.configure(auth={"projects": [path], "jwt": [issuer]})
    surface.router.start()
    yield surface
    await surface.router.close()


def token(**changed: object) -> dict[str, str]:
    """Headers with a token."""
    return bearer(signed(claims(**changed)).decode())


async def test_a_token_is_as_good_as_a_key(surface: Surface) -> None:
    """In either header; a wrong one gets the same error."""
    async with surface.client() as client:
        value = token()["authorization"].removeprefix("Bearer ")
        for headers in (token(), {"x-api-key": value}, bearer()):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        refused = await client.get("/v1/models", headers=token(aud="another"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert refused.headers["www-authenticate"] == "Bearer"


async def test_an_administrators_token_opens_the_operators_routes(surface: Surface) -> None:
    """And nothing else, unless it leads to a project, too."""
    async with surface.client() as client:
        admin = token(roles=["ops"], project=None)
        assert (await client.get("/gateway/config", headers=admin)).status_code == 200
        assert (await client.get("/v1/models", headers=admin)).status_code == 401
        forged = token(roles=["ops"], iss="https://evil.example.com")
        assert (await client.get("/gateway/config", headers=forged)).status_code == 401
        config = (await client.get("/gateway/config", headers=admin)).json()["data"][0]["config"]
    assert config["auth"]["jwt"][0]["issuer"] == ISSUER


async def test_keys_work_while_the_provider_is_down(
    surface: Surface, start_engine: StartEngine
) -> None:
    """Tokens get 503, which clients try again; it is no failure of theirs."""
    auth = surface.live_config.config.auth
    assert auth is not None
    issuer = auth.jwt[0].model_copy(update={"jwks": "http://127.0.0.1:1/keys"})
    changed = auth.model_copy(update={"jwt": [issuer], "max_failures_per_minute": 1})
    surface.live_config.apply(surface.live_config.config.model_copy(update={"auth": changed}))
    async with surface.client() as client:
        for _ in range(3):
            response = await client.get("/v1/models", headers=token())
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "auth_unavailable"
            assert response.headers["retry-after"] == "10"
        assert (await client.get("/v1/models", headers=bearer())).status_code == 200
