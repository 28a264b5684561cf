"""Which web pages may use the gateway: preflight requests, and the headers of every answer."""

from collections.abc import Mapping

import httpx
import pytest

from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, answer, chunked
from tests.unit.surface import CHAT, Surface, script

PAGE = "https://chat.example"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type, x-stainless-os",
}


@pytest.fixture
async def surface(upstream: UpstreamClient, start_engine: StartEngine) -> Surface:
    """A gateway with a model whose engine has CORS headers of its own."""
    surface = Surface(upstream)
    headers = (b"vary: Accept-Encoding, Origin", b"access-control-allow-origin: *")
    surface.add("m", await start_engine(script(answer(b"ok", *headers))))
    surface.add("s", await start_engine(script(EVENTS, chunked(b"data: [DONE]\n\n"), b"0\r\n\r\n")))
    return surface


def shared_with(response: httpx.Response) -> str | None:
    """The origin that may read the answer."""
    headers: Mapping[str, str] = response.headers
    return headers.get("access-control-allow-origin")


def cors_headers(response: httpx.Response) -> list[str]:
    """Names of its headers that concern CORS."""
    return [name for name in response.headers if name.startswith("access-control-")]


async def test_without_a_config_nothing_is_shared(surface: Surface) -> None:
    """Neither the gateway nor an engine behind it lets a page read anything."""
    async with surface.client() as client:
        chat = await client.post(CHAT, json={"model": "m"}, headers={"origin": PAGE})
        preflight = await client.options(CHAT, headers=PREFLIGHT)
        models = await client.get("/v1/models", headers={"origin": PAGE})
    assert chat.headers["vary"] == "Accept-Encoding"
    assert [cors_headers(each) for each in (chat, preflight, models)] == [[], [], []]


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/v1/models/m", "/healthz", "/nowhere"])
async def test_preflight_requests_are_answered(surface: Surface, path: str) -> None:
    """The page may send what it asked for, wherever it wants to send it."""
    surface.configure(cors={"origins": ["https://other.example", PAGE], "max_age_s": 60})
    async with surface.client() as client:
        response = await client.options(path, headers=PREFLIGHT)
    assert (response.status_code, response.content, shared_with(response)) == (204, b"", PAGE)
    headers = response.headers
    assert headers["access-control-allow-methods"] == "GET, HEAD, POST, OPTIONS"
    assert headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
    assert (headers["access-control-max-age"], headers["vary"]) == ("60", "origin")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", CHAT, b'{"model":"m"}', 200),
        ("POST", CHAT, b'{"model":"s","stream":true}', 200),
        ("POST", CHAT, b'{"model":"none"}', 404),
        ("POST", CHAT, b"{", 400),
        ("GET", "/v1/embeddings", b"", 405),
        ("OPTIONS", CHAT, b"", 204),
        ("GET", "/v1/models", b"", 200),
        ("GET", "/nowhere", b"", 404),
        ("DELETE", "/v1/models", b"", 405),
    ],
)
async def test_every_answer_is_shared(
    surface: Surface, method: str, path: str, body: bytes, status: int
) -> None:
    """Answers, streams and errors; the page may read the gateway's own headers."""
    surface.configure(cors={"origins": [PAGE]})
    async with surface.client() as client:
        response = await client.request(method, path, content=body, headers={"origin": PAGE})
    assert (response.status_code, shared_with(response)) == (status, PAGE)
    assert response.headers.get_list("access-control-allow-origin") == [PAGE]
    assert "origin" in response.headers["vary"]
    exposed = response.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "retry-after", "x-gateway-model", "server-timing"} <= set(exposed)


@pytest.mark.parametrize("origin", ["https://evil.example", PAGE + ".evil.example", "null", ""])
async def test_other_pages_get_nothing(surface: Surface, origin: str) -> None:
    """A page that is not listed may not read the answer; caches learn that it depends on that."""
    surface.configure(cors={"origins": [PAGE]})
    async with surface.client() as client:
        chat = await client.post(CHAT, json={"model": "m"}, headers={"origin": origin})
        preflight = await client.options(CHAT, headers={**PREFLIGHT, "origin": origin})
    for response in (chat, preflight):
        assert cors_headers(response) == []
        assert "origin" in response.headers["vary"]


async def test_all_pages_may_be_allowed(surface: Surface) -> None:
    """With `*` the answer is the same for all."""
    surface.configure(cors={"origins": ["*"]})
    async with surface.client() as client:
        response = await client.post(CHAT, json={"model": "m"}, headers={"origin": PAGE})
        preflight = await client.options(CHAT, headers=PREFLIGHT)
    assert (shared_with(response), shared_with(preflight)) == ("*", "*")
    assert response.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("path", ["/gateway/config", "/gateway"])
async def test_operators_routes_are_not_shared(surface: Surface, path: str) -> None:
    """No page may read or send anything there."""
    surface.configure(cors={"origins": ["*"]})
    async with surface.client() as client:
        response = await client.get(path, headers={"origin": PAGE})
        preflight = await client.options(path, headers=PREFLIGHT)
    assert (cors_headers(response), cors_headers(preflight)) == ([], [])


async def test_what_is_no_name_is_not_repeated(surface: Surface) -> None:
    """Only names of headers come back from a preflight request."""
    surface.configure(cors={"origins": [PAGE]})
    headers = {**PREFLIGHT, "access-control-request-headers": "x: <script>"}
    async with surface.client() as client:
        response = await client.options(CHAT, headers=headers)
    assert "access-control-allow-headers" not in response.headers
