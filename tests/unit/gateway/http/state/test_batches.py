"""`/v1/batches`, called by OpenAI's own client."""

from collections.abc import AsyncIterator

import openai
import pytest

from gateway.config.batches import BatchesConfig
from gateway.header_names import PROJECT
from gateway.store.project_state import ProjectState
from tests.unit.batches import (
    CHAT,
    FakeGateway,
    add_file,
    claimed,
    jsonl,
    process,
    request_line,
)
from tests.unit.gateway.http.state.stored import NOW_S, Clock, StateApi

LINES = jsonl(map(request_line, range(5)))
PROJECT_HEADER = PROJECT.decode()


@pytest.fixture
def clock(api: StateApi) -> Clock:
    """The time of day."""
    return api.clock


@pytest.fixture
def state(api: StateApi) -> ProjectState:
    """An empty state."""
    return api.state


@pytest.fixture
async def client(api: StateApi) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client, as a client of project p1."""
    async with api.openai("p1") as found:
        yield found


async def _create(client: openai.AsyncOpenAI, file_id: str, **given: object) -> openai.types.Batch:
    body = {
        "input_file_id": file_id,
        "endpoint": CHAT,
        "completion_window": "24h",
        "metadata": {"night": "3"},
        **given,
    }
    return await client.batches.create(**body)  # type: ignore[arg-type] # also wrong ones


async def test_a_batch_from_its_creation_to_its_end(
    client: openai.AsyncOpenAI, state: ProjectState, clock: Clock
) -> None:
    """It is shown in all of its states."""
    file_id = await add_file(state, LINES, "p1")

    created = await _create(client, file_id)
    await process(await claimed(state, FakeGateway(), clock))
    ended = await client.batches.retrieve(created.id)

    assert created.status == "validating"
    assert (created.created_at, created.expires_at) == (NOW_S, NOW_S + 86_400)
    assert created.metadata == {"night": "3"}
    assert (created.model, created.errors, created.output_file_id) == (None, None, None)
    assert (ended.status, ended.model, ended.completed_at) == ("completed", "m", NOW_S)
    assert ended.request_counts is not None
    assert ended.request_counts.to_dict() == {"total": 5, "completed": 5, "failed": 0}
    assert ended.usage is not None
    assert (ended.usage.total_tokens, ended.usage.input_tokens_details.cached_tokens) == (65, 20)
    assert ended.output_file_id
    assert ended.error_file_id is None


async def test_errors_of_an_input_file_are_shown(
    client: openai.AsyncOpenAI, state: ProjectState, clock: Clock
) -> None:
    """With the number of the line."""
    created = await _create(client, await add_file(state, LINES + LINES[:20] + b"\n", "p1"))
    await process(await claimed(state, FakeGateway(), clock))

    failed = await client.batches.retrieve(created.id)

    assert failed.status == "failed"
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(each.code, each.line) for each in failed.errors.data] == [("invalid_json_line", 6)]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"endpoint": "/v1/audio/speech"}, "endpoint"),
        ({"completion_window": "48h"}, "completion_window"),
        ({"completion_window": "0m"}, "completion_window"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 9}}, None),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"extra_body": {"priority": 1}}, "priority"),
    ],
)
async def test_a_wrong_parameter_is_named(
    client: openai.AsyncOpenAI, state: ProjectState, given: dict[str, object], param: str | None
) -> None:
    """Nothing is created then."""
    file_id = await add_file(state, LINES, "p1")

    with pytest.raises(openai.APIStatusError) as raised:
        await _create(client, file_id, **given)

    assert raised.value.status_code in {400, 404}
    assert param is None or raised.value.param == param
    assert (await client.batches.list()).data == []


@pytest.mark.parametrize(("window", "seconds"), [("1h", 3600), ("30m", 1800), ("24h", 86_400)])
async def test_shorter_windows_than_openais_are_taken(
    client: openai.AsyncOpenAI, state: ProjectState, window: str, seconds: int
) -> None:
    """The deadline follows them."""
    created = await _create(client, await add_file(state, LINES, "p1"), completion_window=window)

    assert created.expires_at == NOW_S + seconds
    assert created.completion_window == window


async def test_only_files_for_batches_are_taken(
    client: openai.AsyncOpenAI, state: ProjectState
) -> None:
    """Neither those of another purpose, nor those of another project."""
    others = await add_file(state, LINES, "p2")
    data = await add_file(state, LINES, "p1", purpose="user_data")

    with pytest.raises(openai.NotFoundError):
        await _create(client, others)
    with pytest.raises(openai.BadRequestError, match="user_data"):
        await _create(client, data)


async def test_lists_have_the_newest_batch_first(
    client: openai.AsyncOpenAI, state: ProjectState
) -> None:
    """Page by page, and only those of the project."""
    file_id = await add_file(state, LINES, "p1")
    created = [(await _create(client, file_id)).id for _ in range(3)]

    page = await client.batches.list(limit=2)
    found = [each.id async for each in page]
    others = await client.batches.list(extra_headers={PROJECT_HEADER: "p2"})

    assert (len(page.data), page.has_more) == (2, True)
    assert found == created[::-1]
    assert others.data == []


async def test_a_batch_is_cancelled(client: openai.AsyncOpenAI, state: ProjectState) -> None:
    """Once it has ended, that is an error; another project's is none."""
    created = await _create(client, await add_file(state, LINES, "p1"))

    with pytest.raises(openai.NotFoundError):
        await client.batches.cancel(created.id, extra_headers={PROJECT_HEADER: "p2"})
    cancelled = await client.batches.cancel(created.id)

    assert (cancelled.status, cancelled.cancelling_at) == ("cancelling", NOW_S)


@pytest.mark.parametrize("file_id", ["file-\0", "file-1", ""])
async def test_a_file_that_cannot_exist_is_not_found(
    client: openai.AsyncOpenAI, file_id: str
) -> None:
    """Whatever characters its id has: some databases do not even take them."""
    with pytest.raises(openai.NotFoundError):
        await _create(client, file_id)


async def test_a_project_has_only_so_many_unfinished_batches(
    client: openai.AsyncOpenAI, state: ProjectState
) -> None:
    """OpenAI's client does not try again: a batch takes a while."""
    file_id = await add_file(state, LINES, "p1")
    most = BatchesConfig(max_unfinished=2)
    state.config = state.config.model_copy(update={"batches": most})
    for _ in range(2):
        await _create(client, file_id)

    with pytest.raises(openai.RateLimitError) as raised:
        await _create(client, file_id)

    assert raised.value.code == "batch_limit_exceeded"
    assert raised.value.response.headers["x-should-retry"] == "false"
