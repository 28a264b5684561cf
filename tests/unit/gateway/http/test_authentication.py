"""Authentication on the whole surface: every route, every way to send a key, every refusal."""

import asyncio
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from gateway.asgi import Message
from gateway.config.auth import DEFAULT_ROUTES
from gateway.config.route_paths import ROUTES
from gateway.config.state_paths import STATE_PATHS
from gateway.http.app import GatewayApp
from gateway.serving.access import ADMIN_PREFIXES, OPEN_PATHS
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, answer
from tests.unit.projects import ADMIN_KEY, KEY, OTHER_KEY, bearer, project, write_projects
from tests.unit.surface import CHAT, Surface, script

WRONG = bearer("sk-wrong-0123456789abcdefghijklmnopqrst")


@pytest.fixture
def projects(tmp_path: Path) -> str:
    """A file with one project that may do everything, and an administrator."""
    mine = project("search", KEY, routes=sorted(ROUTES))
    return write_projects(tmp_path / "projects.yaml", mine, admin_keys=(ADMIN_KEY,))


@pytest.fixture
def surface(upstream: UpstreamClient, projects: str) -> Surface:
    """A gateway with authentication."""
    surface = Surface(upstream)
    surface.configure(auth={"projects": [projects], "max_failures_per_minute": 1000})
    return surface


def all_routes(surface: Surface) -> list[tuple[str, str]]:
    """Method and path of every route of the gateway, and of some that it has not."""
    app = surface.app
    assert isinstance(app, GatewayApp)
    assert isinstance(app._rest, FastAPI)
    found = [("POST", path) for path in ROUTES]
    for route in app._rest.routes:
        path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or ()
        found += [(method, path.replace("{model:path}", "m")) for method in methods]
    found += [("GET", CHAT), ("GET", f"{CHAT}/id"), ("GET", "/v1/responses/id")]
    found += [(method, path) for path in STATE_PATHS for method in ("GET", "POST")]
    paths = ("/", "/v1", "/nothing", "/v1/models/", "//healthz", "/healthz/", "/HEALTHZ")
    return found + [(method, path) for path in paths for method in ("GET", "POST", "OPTIONS")]


async def test_no_route_is_open_by_accident(surface: Surface) -> None:
    """Every route but those for probes refuses requests without a key, and with a wrong one."""
    routes = all_routes(surface)
    assert len(routes) > 40
    async with surface.client() as client:
        for method, path in routes:
            is_open = path in OPEN_PATHS
            for headers in ({}, WRONG, bearer(ADMIN_KEY)):
                if headers == bearer(ADMIN_KEY) and path.startswith(ADMIN_PREFIXES):
                    continue
                response = await client.request(method, path, headers=headers)
                assert (response.status_code != 401) == is_open, (method, path)
                if not is_open:
                    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_key_opens_all_routes_but_those_of_operators(surface: Surface) -> None:
    """What comes then is the route's own answer; an admin key opens the operators' routes only."""
    async with surface.client() as client:
        for method, path in all_routes(surface):
            is_admins = path.startswith(ADMIN_PREFIXES)
            response = await client.request(method, path, headers=bearer())
            assert (response.status_code == 401) == is_admins, (method, path)
            if is_admins:
                response = await client.request(method, path, headers=bearer(ADMIN_KEY))
                assert response.status_code != 401, (method, path)


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Bearer {KEY}")],
        [("authorization", f"bearer   {KEY} ")],
        [("x-api-key", KEY)],
        [("x-api-key", KEY), ("authorization", f"Bearer {KEY}")],
        [("authorization", "Bearer "), ("x-api-key", KEY)],
    ],
)
async def test_a_key_may_come_in_either_header(
    surface: Surface, headers: list[tuple[str, str]]
) -> None:
    """As OpenAI's and as Anthropic's clients send it, or in both."""
    async with surface.client() as client:
        response = await client.get("/v1/models", headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([], "You didn't provide an API key."),
        ([("authorization", "Bearer")], "You didn't provide an API key."),
        ([("authorization", "Basic dXNlcjpwYXNz")], "must have the form `Bearer YOUR_KEY`"),
        ([("authorization", KEY)], "must have the form `Bearer YOUR_KEY`"),
        ([("authorization", f"Bearer {KEY}"), ("x-api-key", OTHER_KEY)], "different API keys"),
        ([("x-api-key", KEY), ("x-api-key", OTHER_KEY)], "different API keys"),
        ([("authorization", f"Bearer {KEY}"), ("authorization", "Bearer x")], "different"),
        ([("x-api-key", KEY.upper())], "Incorrect API key provided: ...WXYZ."),
        ([("x-api-key", "short")], "Incorrect API key provided."),
        ([("x-api-key", "k" * 13_000)], "is longer than 12288 bytes"),
        ([("x-api-key", KEY + "\xe9")], "Incorrect API key provided."),
    ],
)
async def test_a_refusal_says_what_is_wrong_and_no_key(
    surface: Surface, headers: list[tuple[str, str]], message: str
) -> None:
    """In OpenAI's envelope, with at most the last characters of the key that was sent."""
    async with surface.client() as client:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        response = await client.get("/v1/models", headers=raw)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (401, "invalid_api_key")
    assert error["type"] == "invalid_request_error"
    assert message in error["message"]
    assert KEY not in response.text
    assert KEY.upper() not in response.text


@pytest.mark.parametrize("name", ["authorization", "Authorization", "x-api-key"])
async def test_two_keys_are_refused_wherever_the_second_one_is(surface: Surface, name: str) -> None:
    """Also where both are in headers of one name: something in front may have seen the first."""
    second = OTHER_KEY if name == "x-api-key" else f"Bearer {OTHER_KEY}"
    for headers in (
        [("authorization", f"Bearer {KEY}"), (name, second)],
        [(name, second), ("authorization", f"Bearer {KEY}")],
    ):
        async with surface.client() as client:
            refused = await client.post(CHAT, headers=headers, json={"model": "m"})
        assert refused.status_code == 401
        assert "several different API keys" in refused.json()["error"]["message"]


async def test_anthropics_routes_refuse_in_anthropics_shape(surface: Surface) -> None:
    """Its clients read the error's type there."""
    async with surface.client() as client:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            body = (await client.post(path, headers=WRONG)).json()
            assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")


async def test_nothing_of_a_body_is_read_before_the_key_is_checked(surface: Surface) -> None:
    """A client without a key can make the gateway hold nothing."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "query_string": b"",
        "headers": [(b"content-length", b"1000000"), (b"authorization", b"Bearer x")],
    }
    await surface.app(scope, receive, send)
    assert sent[0]["status"] == 401
    # Or it could send the rest as slowly as it likes, and keep the connection.
    assert (b"connection", b"close") in sent[0]["headers"]
    await surface.app({**scope, "headers": []}, receive, send)
    assert (b"connection", b"close") not in sent[2]["headers"]


async def test_the_engine_never_sees_the_key(surface: Surface, start_engine: StartEngine) -> None:
    """A request with a key is answered; the key stays in the gateway."""
    engine = await start_engine(script(answer(b'"mine"')))
    surface.add("m", engine)
    async with surface.client() as client:
        response = await client.post(CHAT, json={"model": "m"}, headers=bearer())
    assert response.text == '"mine"'
    assert KEY.encode() not in engine.requests[0]


async def test_wrong_admin_keys_beside_a_good_key_are_throttled(
    surface: Surface, projects: str
) -> None:
    """A project's member must not try admin keys without end."""
    surface.configure(auth={"projects": [projects], "max_failures_per_minute": 2})
    headers = bearer() | {"x-gateway-admin-key": "wrong"}
    async with surface.client() as client:
        asking = [client.post("/v1/chat/completions", headers=headers) for _ in range(3)]
        statuses = [(await each).status_code for each in asking]
    assert statuses == [401, 401, 429]


async def test_too_many_failures_are_throttled_by_address(surface: Surface, projects: str) -> None:
    """After some in a minute an address gets 429; its valid keys, and other addresses, do not."""
    surface.configure(auth={"projects": [projects], "max_failures_per_minute": 3})
    async with surface.client() as client:
        statuses = [
            (await client.get("/v1/models", headers=headers)).status_code
            for headers in (WRONG, {}, WRONG, bearer())
        ]
        late = await client.get("/v1/models", headers=WRONG)
        good = await client.get("/v1/models", headers=bearer())
    elsewhere = httpx.ASGITransport(surface.app, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=elsewhere, base_url="http://localhost") as client:
        other = await client.get("/v1/models", headers=WRONG)
    assert statuses == [401, 401, 401, 200]
    assert (late.status_code, late.json()["error"]["code"]) == (429, "too_many_failures")
    assert 1 <= int(late.headers["retry-after"]) <= 20
    assert (good.status_code, other.status_code) == (200, 401)


async def test_ready_names_no_models_to_strangers(surface: Surface) -> None:
    """Probes need a status, and nobody else may learn which models there are."""
    surface.add("secret-model")
    async with surface.client() as client:
        response = await client.get("/readyz")
        surface.configure(auth="none")
        open_response = await client.get("/readyz")
    assert (response.status_code, response.json()["reasons"]) == (503, {})
    assert "secret-model" in open_response.json()["reasons"]


async def test_projects_are_read_again(surface: Surface, projects: str) -> None:
    """A key that is added works, one that is removed does not; a wrong file changes nothing."""
    path = Path(projects)

    async def statuses() -> tuple[int, int]:
        async with surface.client() as client:
            found = [
                await client.get("/v1/models", headers=bearer(key)) for key in (KEY, OTHER_KEY)
            ]
        return found[0].status_code, found[1].status_code

    assert await statuses() == (200, 401)
    write_projects(path, project("search", KEY, OTHER_KEY), project("ads"))
    await surface.live_config.refresh_projects()
    assert await statuses() == (200, 200)
    write_projects(path, {"name": "search", "keys": [{"hash": "sk-in-plain-text"}]})
    await surface.live_config.refresh_projects()
    assert await statuses() == (200, 200)
    (problem,) = surface.router.report().rejected
    assert problem.startswith(f"{path}:1: projects[0].keys[0].hash: must be the key's hash")
    assert "sk-in-plain-text" not in problem
    write_projects(path, project("search", OTHER_KEY), admin_keys=(ADMIN_KEY,))
    await surface.live_config.refresh_projects()
    assert await statuses() == (401, 200)
    assert surface.router.report().rejected == ()
    await asyncio.to_thread(path.unlink)
    await surface.live_config.refresh_projects()
    assert await statuses() == (401, 200)
    assert "No such file" in surface.router.report().rejected[0]


async def test_a_router_reads_the_files_by_itself(surface: Surface, projects: str) -> None:
    """While it runs, a change takes effect within seconds."""
    surface.router.start()
    try:
        write_projects(Path(projects), project("search", OTHER_KEY))
        async with surface.client() as client:
            for _ in range(400):
                if (await client.get("/v1/models", headers=bearer(OTHER_KEY))).is_success:
                    break
                await asyncio.sleep(0.05)
            response = await client.get("/v1/models", headers=bearer(KEY))
    finally:
        await surface.router.close()
    assert response.status_code == 401


async def test_a_project_may_use_only_its_routes(surface: Surface, projects: str) -> None:
    """Those of its own, or else those of the config; the others are 403 in the API's shape."""
    tokenizing = project("tokens", OTHER_KEY, routes=["/tokenize"])
    write_projects(Path(projects), project("search", KEY), tokenizing)
    await surface.live_config.refresh_projects()
    async with surface.client() as client:

        async def status(path: str, key: str) -> int:
            return (await client.post(path, json={}, headers=bearer(key))).status_code

        assert await status("/tokenize", KEY) == await status("/pooling", KEY) == 403
        assert await status(CHAT, KEY) == await status("/tokenize", OTHER_KEY) == 400
        refused = await client.post("/v1/messages", json={}, headers=bearer(OTHER_KEY))
    assert refused.status_code == 403
    assert refused.json()["error"]["type"] == "permission_error"


def test_the_default_routes_exist() -> None:
    """Those of OpenAI's, Anthropic's and Cohere's APIs; vLLM's own have to be allowed."""
    assert set(DEFAULT_ROUTES) < ROUTES
    assert {"/tokenize", "/detokenize", "/pooling", "/classify", "/score"} < ROUTES - {
        *DEFAULT_ROUTES
    }


async def test_a_project_has_a_body_limit_of_its_own(surface: Surface, projects: str) -> None:
    """No larger than the gateway's."""
    write_projects(Path(projects), project("search", KEY, max_body_mb=0.001))
    await surface.live_config.refresh_projects()
    async with surface.client() as client:
        body = b'{"model":"m"' + b" " * 2000 + b"}"
        response = await client.post(CHAT, content=body, headers=bearer())
    assert response.status_code == 413
