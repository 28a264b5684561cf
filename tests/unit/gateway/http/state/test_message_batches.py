"""`/v1/messages/batches`, called by Anthropic's own client."""

import json
from collections.abc import AsyncIterator, Mapping
from functools import partial

import anthropic
import httpx2
import pytest

from gateway.batch.line_caller import LineCall
from gateway.store.batches import MESSAGES, begin_batch, begin_finalizing
from tests.unit.batches import FakeGateway, claimed, process
from tests.unit.gateway.http.state.stored import StateApi

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
ERROR = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}


def _request(number: int, **params: object) -> dict[str, object]:
    messages = [{"role": "user", "content": f"question\n{number}"}]
    given = {"model": "m", "max_tokens": 9, "messages": messages} | params
    return {"custom_id": f"r{number}", "params": given}


def _answer(call: LineCall) -> tuple[int, Mapping[str, object]]:
    assert call.path == MESSAGES
    return (400, ERROR) if b"question\\n3" in call.body else (200, MESSAGE)


async def _results(
    client: anthropic.AsyncAnthropic, batch_id: str
) -> AsyncIterator[anthropic.types.messages.MessageBatchIndividualResponse]:
    return await client.messages.batches.results(batch_id)


@pytest.fixture
async def client(api: StateApi) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's client, as a client of project p1."""
    transport = httpx2.ASGITransport(api.app)
    async with (
        httpx2.AsyncClient(transport=transport, headers={"x-gateway-project": "p1"}) as http_client,
        anthropic.AsyncAnthropic(
            api_key="k", base_url="http://state", http_client=http_client, max_retries=0
        ) as found,
    ):
        yield found


async def test_a_batch_from_its_creation_to_its_deletion(
    client: anthropic.AsyncAnthropic, api: StateApi
) -> None:
    """Results are streamed, each in Anthropic's words; then nothing is left of it."""
    batches = client.messages.batches
    made = await batches.create(requests=[_request(n) for n in range(5)])  # type: ignore[misc] # plain mappings
    assert (made.processing_status, made.request_counts.processing) == ("in_progress", 5)
    assert (made.results_url, made.ended_at) == (None, None)
    with pytest.raises(anthropic.BadRequestError):
        await batches.delete(made.id)

    await process(await claimed(api.state, FakeGateway(_answer), api.clock))

    ended = await batches.retrieve(made.id)
    counts = ended.request_counts
    assert ended.processing_status == "ended"
    assert (counts.succeeded, counts.errored, counts.canceled, counts.expired) == (4, 1, 0, 0)
    found = {each.custom_id: each.result async for each in await batches.results(made.id)}
    assert sorted(found) == [f"r{n}" for n in range(5)]
    assert found["r3"].type == "errored"
    assert found["r1"].type == "succeeded"
    assert found["r1"].message.usage.output_tokens == 2
    assert (await batches.delete(made.id)).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        await batches.retrieve(made.id)
    assert await api.stored_keys() == []


async def test_a_cancelled_batch_counts_what_has_not_run(
    client: anthropic.AsyncAnthropic, api: StateApi
) -> None:
    """Also if none of it has."""
    made = await client.messages.batches.create(requests=[_request(n) for n in range(5)])  # type: ignore[misc] # plain mappings

    cancelled = await client.messages.batches.cancel(made.id)
    await process(await claimed(api.state, FakeGateway(_answer), api.clock))
    ended = await client.messages.batches.retrieve(made.id)

    assert cancelled.processing_status == "canceling"
    assert cancelled.cancel_initiated_at is not None
    assert ended.request_counts.canceled == 5
    found = [(each.custom_id, each.result.type) async for each in await _results(client, made.id)]
    assert found == [(f"r{n}", "canceled") for n in range(5)]


async def test_a_batch_that_failed_has_a_result_for_each_request(
    client: anthropic.AsyncAnthropic, api: StateApi
) -> None:
    """With the reason, which the batch itself does not show."""
    made = await client.messages.batches.create(requests=[_request(n) for n in range(5)])  # type: ignore[misc] # plain mappings
    gateway = FakeGateway(_answer)
    gateway.refused = ("model_not_found", "no such model")

    await process(await claimed(api.state, gateway, api.clock))

    ended = await client.messages.batches.retrieve(made.id)
    assert (ended.processing_status, ended.request_counts.errored) == ("ended", 5)
    found = [each.result async for each in await _results(client, made.id)]
    assert len(found) == 5
    assert isinstance(found[0], anthropic.types.messages.MessageBatchErroredResult)
    assert (found[0].error.type, found[0].error.error.type) == ("error", "invalid_request_error")
    assert found[0].error.error.message == "no such model"


async def test_a_batch_whose_results_are_written_may_be_cancelled(
    client: anthropic.AsyncAnthropic, api: StateApi
) -> None:
    """To no effect, as far as Anthropic's clients know of that state."""
    made = await client.messages.batches.create(requests=[_request(1)])  # type: ignore[list-item] # plain mappings
    await claimed(api.state, FakeGateway(_answer), api.clock)
    begin = partial(begin_batch, model="m", total=1, lines=1, plan_key="p")
    await api.state.write(lambda c: begin(c, made.id, 1, api.state.now_s))
    await api.state.write(
        lambda c: begin_finalizing(c, made.id, 1, api.state.now_s, has_expired=False)
    )

    assert (await client.messages.batches.cancel(made.id)).processing_status == "in_progress"


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "at least one"),
        ([_request(1), _request(1)], "requests.1"),
        ([_request(1), _request(2, model="n")], "requests.1"),
        ([_request(1, stream=True)], "requests.0"),
        ([{"custom_id": "x"}], "params"),
    ],
)
async def test_a_wrong_request_is_named(
    client: anthropic.AsyncAnthropic,
    api: StateApi,
    requests: list[dict[str, object]],
    words: str,
) -> None:
    """The batch is refused as a whole, in Anthropic's shape, and nothing is kept."""
    with pytest.raises(anthropic.BadRequestError, match=words) as raised:
        await client.messages.batches.create(requests=requests)  # type: ignore[arg-type] # plain mappings

    assert isinstance(raised.value.body, dict)
    assert raised.value.body["type"] == "error"
    assert await api.stored_keys() == []


async def test_each_api_has_batches_of_its_own(
    client: anthropic.AsyncAnthropic, api: StateApi
) -> None:
    """OpenAI's does not show those of messages; and lists have pages."""
    made = [
        (await client.messages.batches.create(requests=[_request(1)])).id  # type: ignore[list-item] # plain mappings
        for _ in range(3)
    ]

    page = await client.messages.batches.list(limit=2)
    found = [each.id async for each in page]

    assert (len(page.data), page.has_more, page.first_id) == (2, True, made[2])
    assert found == made[::-1]
    async with api.http("p1") as http:
        assert json.loads((await http.get("/v1/batches")).content)["data"] == []
        assert (await http.get(f"/v1/batches/{made[0]}")).status_code == 404
    async with api.http("p2") as http:
        assert (await http.get(f"/v1/messages/batches/{made[0]}")).status_code == 404
