"""Tests of stored chat completions."""

import json

import msgspec
import pytest

from gateway.responses import chat_keeper, response_keeper
from gateway.responses.chat_assembly import ChatAssembly
from gateway.responses.state_messages import CHATS
from gateway.serving.body_budget import MIB
from tests.unit.gateway.responses.conftest import StatefulGateway
from tests.unit.stateful import RESPONSES, events_in
from tests.unit.surface import CHAT, error_of

PARTS = [{"type": "text", "text": "Hi"}]
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": PARTS},
]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_chat_is_kept_if_asked(gateway: StatefulGateway, *, is_stream: bool) -> None:
    """Whole or streamed, the answer and its messages can be shown, changed and deleted."""
    body = {"model": "m", "messages": MESSAGES, "store": True, "metadata": {"a": "b"}}
    found = await gateway.client.post(CHAT, json={**body, "stream": is_stream})
    assert found.status_code == 200
    kept = await gateway.get(f"{CHAT}/chatcmpl-1")
    assert kept["object"] == "chat.completion"
    assert kept["metadata"] == {"a": "b"}
    (choice,) = kept["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello.", "stop")
    messages = await gateway.get(f"{CHAT}/chatcmpl-1/messages")
    assert [each["content"] for each in messages["data"]] == ["Be brief.", None]
    assert messages["data"][1]["content_parts"] == PARTS
    changed = await gateway.client.post(f"{CHAT}/chatcmpl-1", json={"metadata": {"c": "d"}})
    assert changed.json()["metadata"] == {"c": "d"}
    deleted = await gateway.client.delete(f"{CHAT}/chatcmpl-1")
    assert deleted.json()["object"] == "chat.completion.deleted"
    assert error_of(await gateway.client.get(f"{CHAT}/chatcmpl-1"))[:2] == (404, "object_not_found")


async def test_chats_are_listed_by_model_and_metadata(gateway: StatefulGateway) -> None:
    """Only those with the given model and metadata are listed, in order."""
    for value in "xyx":
        body = {"model": "m", "messages": MESSAGES, "store": True, "metadata": {"a": value}}
        assert (await gateway.client.post(CHAT, json=body)).status_code == 200
    listed = await gateway.get(f"{CHAT}?metadata[a]=x")
    assert [each["id"] for each in listed["data"]] == ["chatcmpl-1", "chatcmpl-3"]
    assert (await gateway.get(f"{CHAT}?model=n"))["data"] == []
    page = await gateway.get(f"{CHAT}?limit=1&order=desc&after=chatcmpl-3")
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (["chatcmpl-2"], True)


async def test_usual_chats_are_not_kept(gateway: StatefulGateway) -> None:
    """Without `store: true`, State does not hear of a chat."""
    asked: list[str] = []
    gateway.state.before = asked.append
    for fields in ({}, {"store": False}, {"store": None}):
        body = {"model": "m", "messages": MESSAGES, **fields}
        assert (await gateway.client.post(CHAT, json=body)).status_code == 200
    assert asked == []


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_chat_that_cannot_be_kept_fails(
    gateway: StatefulGateway, *, is_stream: bool
) -> None:
    """Its client gets an error in place of the answer, or of its end."""

    def go_away() -> None:
        gateway.state.is_away = True

    gateway.engine.before_end = go_away
    body = {"model": "m", "messages": MESSAGES, "store": True, "stream": is_stream}
    found = await gateway.client.post(CHAT, json=body)
    if is_stream:
        assert '"code":"not_stored"' in found.text
        assert found.text.endswith("data: [DONE]\n\n")
    else:
        assert error_of(found)[:2] == (503, "not_stored")
    early = await gateway.client.post(CHAT, json=body)
    assert error_of(early)[:2] == (503, "state_unavailable")


def test_chunks_are_put_together() -> None:
    """Texts are joined by choice, and calls of tools by index; an error leaves nothing."""
    head = {"id": "c", "created": 7, "model": "m"}

    def chunk(index: int, delta: object, reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": reason}
        return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"

    def call(**fields: object) -> dict[str, object]:
        return {"tool_calls": [{"index": 0, **fields}]}

    def choice_with_logprobs(token: str) -> bytes:
        choice = {"index": 1, "delta": {}, "logprobs": {"content": [{"token": token}]}}
        return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"

    events = (
        chunk(1, {"role": "assistant", "content": "a"})
        + chunk(0, call(id="call_1", type="function", function={"name": "f", "arguments": ""}))
        + chunk(1, {"content": "b", "reasoning": "c"}, "stop")
        + chunk(0, call(function={"arguments": '{"x"'}))
        + chunk(0, call(function={"arguments": ": 1}"}), "tool_calls")
    )
    events += choice_with_logprobs("a") + choice_with_logprobs("b")
    assembly = ChatAssembly(MIB)
    half = len(events) // 2  # inside an event
    assert not assembly.add(events[:half])
    assert not assembly.add(events[half:])
    assert assembly.add(b"data: [DONE]\n\n")
    whole = json.loads(msgspec.json.encode(assembly.answer()))
    first, second = whole["choices"]
    function = {"name": "f", "arguments": '{"x": 1}'}
    assert first["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": function}
    ]
    assert (second["message"]["content"], second["message"]["reasoning"]) == ("ab", "c")
    assert second["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}], "refusal": None}
    assembly.add(b'data: {"error": {"code": 500}}\n\n')
    assert (assembly.has_failed, assembly.answer()) == (True, None)


async def test_chats_with_one_request_id_are_two(gateway: StatefulGateway) -> None:
    """Engines make a chat's id of that of its request, which clients may choose."""
    gateway.engine.names_chats_by_request = True
    body = {"model": "m", "messages": MESSAGES, "store": True}
    ids = []
    for _ in range(2):
        found = await gateway.client.post(CHAT, json=body, headers={"x-request-id": "mine"})
        assert found.headers["x-request-id"] == "mine"
        ids.append(found.json()["id"])
    assert len(set(ids)) == 2
    assert all(each.startswith("chatcmpl-mine-") for each in ids)
    assert [each["id"] for each in (await gateway.get(CHAT))["data"]] == ids


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_that_is_too_large_to_keep_fails(
    gateway: StatefulGateway, monkeypatch: pytest.MonkeyPatch, *, is_stream: bool
) -> None:
    """It is neither kept in part, nor sent as if it were kept."""
    monkeypatch.setattr(chat_keeper, "MAX_KEPT", 100)
    monkeypatch.setattr(response_keeper, "MAX_HELD", 100)
    body = {"model": "m", "messages": MESSAGES, "store": True, "stream": is_stream}
    found = await gateway.client.post(CHAT, json=body)
    if is_stream:
        assert '"code":"not_stored"' in found.text
        assert found.text.endswith("data: [DONE]\n\n")
    else:
        assert error_of(found)[:2] == (503, "not_stored")
        response = {"model": "m", "input": "Hi", "store": True}
        assert error_of(await gateway.client.post(RESPONSES, json=response))[:2] == (
            503,
            "not_stored",
        )
        response["store"] = None
        usual = await gateway.client.post(RESPONSES, json=response)
        assert (usual.status_code, usual.headers["x-gateway-not-stored"]) == (200, "1")
    assert (await gateway.get(CHAT))["data"] == []


@pytest.mark.parametrize("is_away", [False, True])
async def test_the_end_of_a_stream_is_no_text_in_it(
    gateway: StatefulGateway, *, is_away: bool
) -> None:
    """An answer about streams is kept whole, and its error stands before its end."""
    gateway.engine.text = "data: [DONE]"
    gateway.engine.chunk_size = 100
    gateway.engine.sends_at_once = True
    if is_away:
        gateway.state.before = lambda path: setattr(gateway.state, "is_away", path == CHATS)
    body = {"model": "m", "messages": MESSAGES, "store": True, "stream": True}
    found = await gateway.client.post(CHAT, json=body)
    events = events_in(found.text)
    assert events[1]["choices"][0]["delta"]["content"] == "data: [DONE]"
    assert found.text.endswith("data: [DONE]\n\n")
    assert ("error" in events[-1]) == is_away
    gateway.state.before = lambda path: None
    gateway.state.is_away = False
    kept = (await gateway.get(CHAT))["data"]
    assert [each["choices"][0]["message"]["content"] for each in kept] == (
        [] if is_away else ["data: [DONE]"]
    )


async def test_metadata_is_checked_before_the_engine_works(gateway: StatefulGateway) -> None:
    """What can never be stored is refused as such, not as if it were worth another try."""
    for labels in ({"a": 1}, {"a": "x" * 513}, {str(each): "" for each in range(17)}, "x"):
        body = {"model": "m", "messages": MESSAGES, "store": True, "metadata": labels}
        refused = await gateway.client.post(CHAT, json=body)
        assert error_of(refused) == (400, "invalid_value", "metadata")
    assert gateway.engine.bodies == []


async def test_a_conversation_that_is_deleted_meanwhile_is_said_to_be(
    gateway: StatefulGateway,
) -> None:
    """A response that can never be stored gets State's own error, not one to try again after."""
    made = (await gateway.client.post("/v1/conversations", json={})).json()

    async def delete() -> None:
        await gateway.client.delete(f"/v1/conversations/{made['id']}")

    gateway.engine.before_end = delete
    body = {"model": "m", "input": "Hi", "conversation": made["id"], "store": True}
    refused = await gateway.client.post(RESPONSES, json=body)
    assert error_of(refused)[:2] == (404, "object_not_found")
