"""Tests of stored chat completions."""

import json

import pytest

from gateway.responses.chat_assembly import assembled_chat
from tests.unit.gateway.responses.conftest import StatefulGateway
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

    events = (
        chunk(1, {"role": "assistant", "content": "a"})
        + chunk(0, call(id="call_1", type="function", function={"name": "f", "arguments": ""}))
        + chunk(1, {"content": "b", "reasoning": "c"}, "stop")
        + chunk(0, call(function={"arguments": '{"x"'}))
        + chunk(0, call(function={"arguments": ": 1}"}), "tool_calls")
    )
    whole = assembled_chat(events + b"data: [DONE]\n\n")
    assert whole is not None
    first, second = whole["choices"]
    function = {"name": "f", "arguments": '{"x": 1}'}
    assert first["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": function}
    ]
    assert (second["message"]["content"], second["message"]["reasoning"]) == ("ab", "c")
    assert assembled_chat(events + b'data: {"error": {"code": 500}}\n\n') is None
