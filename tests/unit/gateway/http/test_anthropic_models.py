"""`/v1/models` for clients of Anthropic's API, and for those of OpenAI's."""

from typing import Any

import pytest

from gateway.asgi import Scope
from gateway.errors.request import InvalidRequest
from gateway.http.anthropic_models import (
    AnthropicModel,
    PageQuery,
    anthropic_model,
    page_of,
    speaks_anthropic,
)
from gateway.upstream.client import UpstreamClient
from tests.unit.projects import KEY, project, write_projects
from tests.unit.surface import Surface

NAMES = ["a", "b", "c", "d", "e"]
MODELS = [anthropic_model(name, 7, 512) for name in NAMES]
CLAUDE = {"anthropic-version": "2023-06-01"}


@pytest.fixture
def surface(upstream: UpstreamClient) -> Surface:
    """A gateway with five models, which are not running."""
    surface = Surface(upstream)
    for name in NAMES:
        surface.add(name)
    return surface


def scope(path: str, *headers: tuple[bytes, bytes]) -> Scope:
    """The scope of a request for a path, with its percent-encoding removed as servers do it."""
    return {"type": "http", "path": path, "headers": [*headers]}


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        ({}, "abcde", False),
        ({"limit": 2}, "ab", True),
        ({"limit": 5}, "abcde", False),
        ({"after_id": "b"}, "cde", False),
        ({"after_id": "b", "limit": 2}, "cd", True),
        ({"before_id": "d"}, "abc", False),
        ({"before_id": "d", "limit": 2}, "bc", True),
        ({"after_id": "a", "before_id": "e", "limit": 2}, "bc", True),
        ({"after_id": "d", "before_id": "b"}, "", False),
        ({"after_id": "e"}, "", False),
    ],
)
def test_a_page_is_part_of_the_list(query: dict[str, Any], ids: str, has_more: bool) -> None:
    """After or before a model; backwards it is the last ones before that."""
    page = page_of(MODELS, PageQuery(**query))
    assert [model.id for model in page.data] == list(ids)
    assert page.has_more is has_more
    assert (page.first_id, page.last_id) == ((ids[0], ids[-1]) if ids else (None, None))


@pytest.mark.parametrize("param", ["after_id", "before_id"])
def test_a_page_begins_at_a_model_that_is_there(param: str) -> None:
    """Another one is the client's mistake, which is named."""
    with pytest.raises(InvalidRequest) as refused:
        page_of(MODELS, PageQuery.model_validate({param: "x"}))
    assert refused.value.detail.param == param


def test_a_model_has_anthropics_fields() -> None:
    """The time is one with a zone, and the length of the context that of the engine."""
    assert anthropic_model("m", 0, None).model_dump(mode="json") == {
        "type": "model",
        "id": "m",
        "display_name": "m",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": None,
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/models", True),
        ("/v1/models/m", True),
        ("/v1/models/org/m?", True),
        ("/v1/models/", True),
        ("/v1/modelsX", False),
        ("/v1/chat/completions", False),
    ],
)
def test_the_version_tells_whose_client_asks_for_models(path: str, expected: bool) -> None:
    """On no other route; and nothing else tells it."""
    assert speaks_anthropic(scope(path, (b"anthropic-version", b"2023-06-01"))) is expected
    assert not speaks_anthropic(scope(path, (b"x-api-key", b"k")))


async def test_clients_of_anthropics_get_pages(surface: Surface) -> None:
    """Of its objects, and one of these by its name."""
    async with surface.client() as client:
        page = (await client.get("/v1/models?limit=2&beta=true", headers=CLAUDE)).json()
        one = (await client.get("/v1/models/c?beta=true", headers=CLAUDE)).json()
    assert [AnthropicModel.model_validate(each).id for each in page["data"]] == ["a", "b"]
    assert (page["has_more"], page["last_id"]) == (True, "b")
    assert (one["type"], one["id"]) == ("model", "c")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=9999", "limit=x", "limit=", "after_id=x", "before_id=x"],
)
async def test_pages_are_for_clients_of_anthropics_only(surface: Surface, query: str) -> None:
    """OpenAI's list has none: whatever its clients send, they get all of it."""
    async with surface.client() as client:
        openai = await client.get(f"/v1/models?{query}", headers={"authorization": "Bearer k"})
        claude = await client.get(f"/v1/models?{query}", headers=CLAUDE)
    assert openai.status_code == 200
    assert [card["id"] for card in openai.json()["data"]] == NAMES
    assert claude.status_code == 400
    error = claude.json()
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert error["error"]["message"].startswith(f"{query.partition('=')[0]}: ")


async def test_errors_have_the_shape_of_the_clients_api(
    upstream: UpstreamClient, tmp_path: Any
) -> None:
    """Also those that nothing but the gateway's door has seen, such as a wrong key."""
    surface = Surface(upstream)
    path = write_projects(tmp_path / "projects.yaml", project("p", KEY))
    surface.configure(auth={"projects": [path]})
    async with surface.client() as client:
        wrong = {"x-api-key": "wrong"}
        for path in ("/v1/models", "/v1/models/m"):
            claude = await client.get(path, headers={**wrong, **CLAUDE})
            openai = await client.get(path, headers=wrong)
            assert claude.status_code == openai.status_code == 401
            assert claude.json()["error"]["type"] == "authentication_error"
            assert openai.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("path", "is_anthropics"),
    [
        ("/v1/messages/batches", True),
        ("/v1/messages/", True),
        ("/v1%2Fmessages/x", True),
        ("/v1/m%65ssages/x", True),
        ("/v1/messages%2Fx", True),
        ("/v1/messagesX", False),
        ("/v1/messages-x", False),
        ("/v1/messages%3Fx", False),
        ("/v1/Messages", False),
        ("/v1//messages", False),
    ],
)
async def test_paths_below_messages_are_anthropics(
    surface: Surface, path: str, *, is_anthropics: bool
) -> None:
    """However they are encoded; one that only begins alike is nobody's."""
    async with surface.client() as client:
        error = (await client.get(path)).json()
    assert error["error"]["type"] == (
        "not_found_error" if is_anthropics else "invalid_request_error"
    )
    assert ("request_id" in error) is is_anthropics
