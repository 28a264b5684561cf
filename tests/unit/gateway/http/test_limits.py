"""Limits as clients meet them: with keys, over HTTP."""

from pathlib import Path

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, answer
from tests.unit.projects import KEY, OTHER_KEY, bearer, project, write_projects
from tests.unit.surface import CHAT, Surface, script

MESSAGES = "/v1/messages"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}


@pytest.fixture
async def surface(upstream: UpstreamClient, start_engine: StartEngine, tmp_path: Path) -> Surface:
    """A model, and two projects: one may send one request a minute."""
    surface = Surface(upstream)
    limited = project("search", KEY, rate_limits=[{"requests_per_minute": 1}])
    path = write_projects(tmp_path / "projects.json", limited, project("other", OTHER_KEY))
    surface.configure(auth={"projects": [path]})
    surface.add("m", await start_engine(script(answer(b"{}"))), routes=(CHAT, MESSAGES))
    return surface


async def test_the_error_has_openais_shape_and_other_projects_go_on(surface: Surface) -> None:
    """OpenAI's message, type and code; and when to try again."""
    async with surface.client() as client:
        first = await client.post(CHAT, json=BODY, headers=bearer())
        second = await client.post(CHAT, json=BODY, headers=bearer())
        other = await client.post(CHAT, json=BODY, headers=bearer(OTHER_KEY))
    assert (first.status_code, second.status_code, other.status_code) == (200, 429, 200)
    error = second.json()["error"]
    assert error["message"].startswith(
        "Rate limit reached for m in project search on requests per min (RPM): Limit 1, Used 1,"
    )
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert 55 <= int(second.headers["retry-after"]) <= 60
    assert 55_000 <= int(second.headers["retry-after-ms"]) <= 60_000
    assert second.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-ratelimit-limit-requests" not in other.headers


async def test_anthropics_clients_get_their_own_shape(surface: Surface) -> None:
    """A type that Anthropic's clients know."""
    async with surface.client() as client:
        await client.post(MESSAGES, json=BODY, headers={"x-api-key": KEY})
        refused = await client.post(MESSAGES, json=BODY, headers={"x-api-key": KEY})
    assert refused.status_code == 429
    assert (refused.json()["type"], refused.json()["error"]["type"]) == (
        "error",
        "rate_limit_error",
    )
    assert refused.headers["anthropic-ratelimit-requests-remaining"] == "0"


async def test_openais_client_raises_its_own_error(surface: Surface) -> None:
    """Its SDK finds code and type."""
    transport = httpx2.ASGITransport(surface.app)
    async with openai.AsyncOpenAI(
        api_key=KEY,
        base_url="http://localhost/v1",
        http_client=httpx2.AsyncClient(transport=transport),
        max_retries=0,
    ) as client:
        ask = client.chat.completions.with_raw_response.create
        messages = [ChatCompletionUserMessageParam(role="user", content="hi")]
        await ask(model="m", messages=messages)
        with pytest.raises(openai.RateLimitError) as refused:
            await ask(model="m", messages=messages)
    assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
