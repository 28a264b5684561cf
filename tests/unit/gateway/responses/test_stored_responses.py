"""Tests of stored responses, end to end but for servers: threads, conversations, and failures."""

import asyncio
import tracemalloc

import msgspec
import pytest

from gateway.errors.state import NotStored
from gateway.request.parse_cost import MAX_ITEMS
from gateway.responses import response_keeper
from gateway.responses.state_calls import StateCalls
from gateway.responses.state_messages import HISTORY, HistoryQuery
from gateway.serving.body_budget import MIB
from gateway.serving.state_client import StateAnswer
from gateway.store import conversations, pages, responses, state_upkeep
from tests.unit.conftest import PATIENCE_S
from tests.unit.gateway.responses.conftest import StatefulGateway
from tests.unit.stateful import RESPONSES, events_in
from tests.unit.surface import CHAT, error_of

LARGE = 3 * MIB


def texts(items: list[dict[str, object]]) -> list[object]:
    """The contents of items, in order; of parts, the first one's text."""
    found = []
    for item in items:
        content = item["content"]
        found.append(content[0]["text"] if isinstance(content, list) else content)
    return found


async def test_a_response_is_kept_as_its_client_has_it(gateway: StatefulGateway) -> None:
    """The stored object is the answer, with an id of the gateway's own, and its input is listed."""
    made = await gateway.respond(input="Hi", metadata={"a": "b"})
    assert made["store"] is True
    assert made["id"].startswith("resp_")
    assert "engine" not in made["id"]
    assert await gateway.get(f"{RESPONSES}/{made['id']}") == made
    listed = await gateway.get(f"{RESPONSES}/{made['id']}/input_items")
    (item,) = listed["data"]
    assert item["content"] == [{"type": "input_text", "text": "Hi"}]
    assert (item["role"], item["status"]) == ("user", "completed")
    assert listed["first_id"] == listed["last_id"] == item["id"]


async def test_a_thread_reaches_the_engine_whole(gateway: StatefulGateway) -> None:
    """The engine gets all that came before, in order and without ids; instructions stay behind."""
    first = await gateway.respond(input="One", instructions="Be brief.")
    second = await gateway.respond(
        input=[{"role": "user", "content": "Two"}], previous_response_id=first["id"]
    )
    third = await gateway.respond(input="Three", previous_response_id=second["id"], store=False)
    sent = gateway.engine.bodies[-1]
    assert texts(sent["input"]) == ["One", "Hello.", "Two", "Hello.", "Three"]
    assert not {"previous_response_id", "store", "instructions"} & sent.keys()
    assert second["previous_response_id"] == first["id"]
    assert (third["store"], third["previous_response_id"]) == (False, second["id"])
    missing = await gateway.client.get(f"{RESPONSES}/{third['id']}")
    assert error_of(missing)[:2] == (404, "object_not_found")


async def test_the_engine_gets_what_it_has_cached(gateway: StatefulGateway) -> None:
    """The first items of a second turn are those of the first, as they were written."""
    written = [{"role": "user", "content": [{"type": "input_text", "text": "One"}], "x": None}]
    first = await gateway.respond(input=written)
    await gateway.respond(input="Two", previous_response_id=first["id"])
    sent = gateway.engine.bodies[-1]["input"]
    assert {**sent[0], "id": "", "type": ""} == {**written[0], "id": "", "type": ""}
    assert sent[1] == first["output"][0]


async def test_a_stream_is_kept_before_its_last_event(gateway: StatefulGateway) -> None:
    """All events with the object have its own id, and the next turn finds it."""
    found = await gateway.client.post(RESPONSES, json={"model": "m", "input": "Hi", "stream": True})
    events = events_in(found.text)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    whole = [event["response"] for event in events if "response" in event]
    assert len(whole) == 3
    assert len({each["id"] for each in whole}) == 1
    assert all(each["store"] for each in whole)
    assert await gateway.get(f"{RESPONSES}/{whole[-1]['id']}") == whole[-1]


async def test_an_unknown_thread_is_refused(gateway: StatefulGateway) -> None:
    """A previous response that is not there is an error of the request, in OpenAI's words."""
    body = {"model": "m", "input": "Hi", "previous_response_id": "resp_x"}
    refused = await gateway.client.post(RESPONSES, json=body)
    assert error_of(refused) == (400, "previous_response_not_found", "previous_response_id")
    assert "'resp_x' not found" in refused.json()["error"]["message"]
    assert gateway.engine.bodies == []


async def test_a_thread_and_a_conversation_exclude_each_other(gateway: StatefulGateway) -> None:
    """A request continues one of both."""
    body = {"model": "m", "input": "Hi", "previous_response_id": "a", "conversation": "b"}
    refused = await gateway.client.post(RESPONSES, json=body)
    assert error_of(refused) == (400, "invalid_value", "conversation")


async def test_a_conversation_grows_with_each_turn(gateway: StatefulGateway) -> None:
    """Its items come before a request's own, and the turn's are added to them."""
    given = {"items": [{"role": "developer", "content": "Be brief."}], "metadata": {"a": "b"}}
    made = (await gateway.client.post("/v1/conversations", json=given)).json()
    assert (made["object"], made["metadata"]) == ("conversation", {"a": "b"})
    place = f"/v1/conversations/{made['id']}"
    first = await gateway.respond(input="One", conversation=made["id"])
    assert first["conversation"] == {"id": made["id"]}
    second = await gateway.respond(input="Two", conversation={"id": made["id"]})
    assert texts(gateway.engine.bodies[-1]["input"]) == ["Be brief.", "One", "Hello.", "Two"]
    listed = await gateway.get(f"{place}/items?order=asc")
    assert texts(listed["data"]) == ["Be brief.", "One", "Hello.", "Two", "Hello."]
    # A response of a conversation can be continued by itself, as of then.
    await gateway.respond(input="Or", previous_response_id=first["id"])
    assert texts(gateway.engine.bodies[-1]["input"]) == ["Be brief.", "One", "Hello.", "Or"]
    assert (await gateway.client.delete(place)).json() == {
        "id": made["id"],
        "object": "conversation.deleted",
        "deleted": True,
    }
    refused = await gateway.client.post(
        RESPONSES, json={"model": "m", "input": "Hi", "conversation": made["id"]}
    )
    assert error_of(refused)[:2] == (404, "object_not_found")
    assert await gateway.get(f"{RESPONSES}/{second['id']}") == second


async def test_items_of_a_conversation_are_pages(gateway: StatefulGateway) -> None:
    """Items are added, listed from the newest on, shown and deleted one by one."""
    made = (await gateway.client.post("/v1/conversations", json={})).json()
    place = f"/v1/conversations/{made['id']}/items"
    items = [{"role": "user", "content": text} for text in "abc"]
    added = (await gateway.client.post(place, json={"items": items})).json()
    ids = [item["id"] for item in added["data"]]
    page = await gateway.get(f"{place}?limit=2")
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[1], True)
    rest = await gateway.get(f"{place}?after={ids[1]}")
    assert [item["id"] for item in rest["data"]] == [ids[0]]
    assert (await gateway.get(f"{place}/{ids[0]}"))["content"][0]["text"] == "a"
    assert (await gateway.client.delete(f"{place}/{ids[0]}")).json()["id"] == made["id"]
    gone = await gateway.client.get(f"{place}/{ids[0]}")
    assert error_of(gone)[:2] == (404, "object_not_found")
    many = await gateway.client.post(place, json={"items": items * 7})
    assert error_of(many) == (400, "invalid_value", "items")


async def test_references_stand_for_items(gateway: StatefulGateway) -> None:
    """An item of an earlier response can be sent by its id; an unknown one is refused."""
    first = await gateway.respond(input="One")
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    second = await gateway.respond(input=[reference, {"role": "user", "content": "Two"}])
    assert texts(gateway.engine.bodies[-1]["input"]) == ["Hello.", "Two"]
    listed = await gateway.get(f"{RESPONSES}/{second['id']}/input_items?order=asc")
    assert listed["data"][0]["id"] == reference["id"]
    body = {"model": "m", "input": [{"type": "item_reference", "id": "msg_x"}]}
    refused = await gateway.client.post(RESPONSES, json=body)
    assert error_of(refused) == (404, "object_not_found", "input")


async def test_a_changed_item_is_another(gateway: StatefulGateway) -> None:
    """An item that comes back with its id, but not as it was, does not change what is kept."""
    first = await gateway.respond(input="One")
    changed = {**first["output"][0], "content": [{"type": "output_text", "text": "Never."}]}
    second = await gateway.respond(input=[changed, {"role": "user", "content": "Two"}])
    listed = await gateway.get(f"{RESPONSES}/{second['id']}/input_items?order=asc")
    assert listed["data"][0]["id"] != changed["id"]
    assert listed["data"][0]["content"][0]["text"] == "Never."
    assert (await gateway.get(f"{RESPONSES}/{first['id']}"))["output"] == first["output"]


async def test_a_deleted_response_is_gone_but_for_those_that_continue_it(
    gateway: StatefulGateway,
) -> None:
    """Its items go with the last response that has them."""
    first = await gateway.respond(input="One")
    second = await gateway.respond(input="Two", previous_response_id=first["id"])
    deleted = await gateway.client.delete(f"{RESPONSES}/{first['id']}")
    assert deleted.json() == {"id": first["id"], "object": "response", "deleted": True}
    assert (await gateway.client.get(f"{RESPONSES}/{first['id']}")).status_code == 404
    body = {"model": "m", "input": "x", "previous_response_id": first["id"]}
    assert error_of(await gateway.client.post(RESPONSES, json=body))[0] == 400
    await gateway.respond(input="Three", previous_response_id=second["id"], store=False)
    sent = gateway.engine.bodies[-1]["input"]
    assert texts(sent) == ["One", "Hello.", "Two", "Hello.", "Three"]


async def test_nothing_is_kept_without_store(gateway: StatefulGateway) -> None:
    """`store: false` goes to the engine as it came, and State does not hear of it."""
    asked: list[str] = []
    gateway.state.before = asked.append
    made = await gateway.respond(input="Hi", store=False)
    assert made["id"] == "resp_engine_1"
    assert asked == []


async def test_without_state_only_what_needs_it_fails(gateway: StatefulGateway) -> None:
    """Answers say that they are not stored; what must be, or refers to what is, gets 503."""
    first = await gateway.respond(input="One")
    gateway.state.is_away = True
    usual = await gateway.client.post(RESPONSES, json={"model": "m", "input": "Hi"})
    assert usual.json()["store"] is False
    assert usual.headers["x-gateway-not-stored"] == "1"
    stream = {"model": "m", "input": "Hi", "stream": True}
    events = events_in((await gateway.client.post(RESPONSES, json=stream)).text)
    assert {event["response"]["store"] for event in events if "response" in event} == {False}
    for fields in (
        {"store": True},
        {"previous_response_id": first["id"]},
        {"conversation": "conv_x"},
        {"background": True},
    ):
        body = {"model": "m", "input": "Hi", **fields}
        refused = await gateway.client.post(RESPONSES, json=body)
        assert error_of(refused) == (503, "state_unavailable", None), fields
        assert refused.headers["retry-after"]
    assert (await gateway.respond(input="Hi", store=False))["store"] is False
    gateway.state.is_away = False
    again = await gateway.client.post(RESPONSES, json={"model": "m", "input": "Hi", "store": True})
    assert again.json()["store"] is True


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_that_must_be_stored_fails_with_state(
    gateway: StatefulGateway, *, is_stream: bool
) -> None:
    """Where State goes away meanwhile, a client that asked to store is not told that it was."""

    def go_away() -> None:
        gateway.state.is_away = True

    gateway.engine.before_end = go_away
    body = {"model": "m", "input": "Hi", "store": True, "stream": is_stream}
    found = await gateway.client.post(RESPONSES, json=body)
    if is_stream:
        last = events_in(found.text)[-1]
        assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
        assert last["response"]["store"] is False
    else:
        assert error_of(found)[:2] == (503, NotStored.code)


async def test_errors_of_engines_pass(gateway: StatefulGateway) -> None:
    """What is no response is neither kept nor changed."""
    refused = await gateway.client.post(RESPONSES, json={"model": "n", "input": "Hi"})
    assert error_of(refused)[:2] == (404, "model_not_found")


async def test_threads_expire_with_their_last_response(gateway: StatefulGateway) -> None:
    """A response stays as long as one of its thread does; then all are gone."""
    first = await gateway.respond(input="One")
    gateway.clock.now_s += 29 * 86_400
    second = await gateway.respond(input="Two", previous_response_id=first["id"])
    gateway.clock.now_s += 2 * 86_400
    await gateway.upkeep()
    assert (await gateway.client.get(f"{RESPONSES}/{first['id']}")).status_code == 404
    await gateway.respond(input="Three", previous_response_id=second["id"], store=False)
    assert texts(gateway.engine.bodies[-1]["input"])[0] == "One"
    gateway.clock.now_s += 30 * 86_400
    await gateway.upkeep()
    assert await gateway.rows() == {"responses": 0, "response_items": 0, "response_item_places": 0}


async def test_another_project_finds_nothing(gateway: StatefulGateway) -> None:
    """Its requests are answered as if there were no such response, conversation, chat or item."""
    ask = gateway.state.request
    made = await gateway.respond(input="One")
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "store": True}
    kept = (await gateway.client.post("/v1/chat/completions", json=chat)).json()
    conversation = (await gateway.client.post("/v1/conversations", json={})).json()
    for path in (
        f"{RESPONSES}/{made['id']}",
        f"{RESPONSES}/{made['id']}/input_items",
        f"/v1/conversations/{conversation['id']}",
        f"/v1/conversations/{conversation['id']}/items",
        f"/v1/chat/completions/{kept['id']}",
    ):
        assert (await ask("", "GET", path)).status == 200, path
        assert (await ask("other", "GET", path)).status == 404, path
    assert (await ask("other", "DELETE", f"{RESPONSES}/{made['id']}")).status == 404
    for query, status in (
        (HistoryQuery(previous_id=made["id"], max_bytes=MIB), 400),
        (HistoryQuery(conversation_id=conversation["id"], max_bytes=MIB), 404),
        (HistoryQuery(references=[made["output"][0]["id"]], max_bytes=MIB), 404),
    ):
        body = msgspec.json.encode(query)
        assert (await ask("", "POST", HISTORY, body)).status == 200
        assert (await ask("other", "POST", HISTORY, body)).status == status


async def test_a_history_is_no_larger_than_a_body_may_be(gateway: StatefulGateway) -> None:
    """State stops reading where the router could not take more."""
    made = await gateway.respond(input="x" * 4096)
    query = HistoryQuery(previous_id=made["id"], max_bytes=4096)
    found = await gateway.state.request("", "POST", HISTORY, msgspec.json.encode(query))
    assert found.status == 400
    assert b"context_length_exceeded" in found.body


async def store_large_item(gateway: StatefulGateway) -> str:
    """A conversation with an item of `LARGE` bytes."""
    item = {"id": "msg_large", "role": "user", "content": "x" * LARGE}
    made = await gateway.client.post("/v1/conversations", json={"items": [item]})
    assert made.status_code == 200
    return str(made.json()["id"])


async def test_many_references_to_one_item_are_as_large_as_they_are(
    gateway: StatefulGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they stand for is counted before a body is made of it, and before State reads it."""
    await store_large_item(gateway)
    reference = {"type": "item_reference", "id": "msg_large"}
    made: list[int] = []
    encode = msgspec.json.encode

    def measured(value: object) -> bytes:
        encoded = encode(value)
        made.append(len(encoded))
        return encoded

    monkeypatch.setattr(msgspec.json, "encode", measured)
    body = {"model": "m", "input": [reference] * 100}
    refused = await gateway.client.post(RESPONSES, json=body)
    assert error_of(refused)[:2] == (413, "body_too_large")
    assert max(made) < 2 * LARGE
    body = {"model": "m", "input": [reference] * 1001}
    refused = await gateway.client.post(RESPONSES, json=body)
    assert error_of(refused) == (400, "invalid_value", "input")
    query = HistoryQuery(references=[reference["id"]], max_bytes=MIB)
    found = await gateway.state.request("", "POST", HISTORY, encode(query))
    assert (found.status, b"context_length_exceeded" in found.body) == (400, True)


async def test_an_input_of_too_many_items_is_not_taken_apart(gateway: StatefulGateway) -> None:
    """Neither where it may have references, nor to be kept, nor in a conversation."""
    many = [0] * (MAX_ITEMS + 1)
    for fields in ({"store": False, "x": "item_reference"}, {}):
        body = {"model": "m", "input": many, **fields}
        refused = await gateway.client.post(RESPONSES, json=body)
        assert error_of(refused) == (400, "invalid_value", "input")
    assert gateway.engine.bodies == []
    refused = await gateway.client.post("/v1/conversations", json={"items": many})
    assert error_of(refused) == (400, "invalid_value", "items")


async def test_references_need_no_type(gateway: StatefulGateway) -> None:
    """OpenAI's type may be left out; a body that only looks like one needs nothing of State."""
    first = await gateway.respond(input="One")
    reference = {"id": first["output"][0]["id"]}
    await gateway.respond(input=[reference, {"role": "user", "content": "Two"}], store=False)
    assert texts(gateway.engine.bodies[-1]["input"]) == ["Hello.", "Two"]
    gateway.state.is_away = True
    await gateway.respond(input="What is an item_reference?", store=False)
    assert texts([{"content": gateway.engine.bodies[-1]["input"]}]) == [
        "What is an item_reference?"
    ]


@pytest.mark.parametrize("name", ["a\0b", "x" * 257])
async def test_ids_that_nothing_can_have_are_refused(gateway: StatefulGateway, name: str) -> None:
    """They do not reach the database, which may not take them."""
    asked: list[str] = []
    gateway.state.before = asked.append
    for fields, status in (
        ({"previous_response_id": name}, 400),
        ({"conversation": name}, 400),
        ({"input": [{"type": "item_reference", "id": name}]}, 404),
    ):
        body = {"model": "m", "input": "x", **fields}
        assert (await gateway.client.post(RESPONSES, json=body)).status_code == status
    assert asked == []


async def test_a_conversation_has_an_item_once(gateway: StatefulGateway) -> None:
    """One that is added again gets another id, so pages by ids come to their end."""
    made = (await gateway.client.post("/v1/conversations", json={})).json()
    place = f"/v1/conversations/{made['id']}/items"
    item = {"id": "msg_x", "role": "user", "content": "a"}
    added = await gateway.client.post(place, json={"items": [item, item]})
    reference = {"type": "item_reference", "id": "msg_x"}
    again = await gateway.client.post(place, json={"items": [reference]})
    ids = [each["id"] for found in (added, again) for each in found.json()["data"]]
    assert (ids[0], len(set(ids))) == ("msg_x", 3)
    assert texts(again.json()["data"]) == ["a"]
    seen: list[str] = []
    after = ""
    while page := (await gateway.get(f"{place}?limit=1{after}"))["data"]:
        seen += [each["id"] for each in page]
        assert len(seen) <= len(ids)
        after = f"&after={seen[-1]}"
    assert seen == ids[::-1]
    missing = await gateway.client.post(place, json={"items": [{"id": "msg_none"}]})
    assert error_of(missing) == (404, "object_not_found", "items")


async def test_a_full_conversation_takes_no_more(
    gateway: StatefulGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so before an engine works."""
    made = (await gateway.client.post("/v1/conversations", json={})).json()
    place = f"/v1/conversations/{made['id']}/items"
    items = [{"role": "user", "content": "a"}] * 2
    monkeypatch.setattr(conversations, "MAX_ITEMS", 3)
    assert (await gateway.client.post(place, json={"items": items})).status_code == 200
    full = await gateway.client.post(place, json={"items": items})
    assert error_of(full)[:2] == (400, "storage_quota_exceeded")
    await gateway.respond(input="Hi", conversation=made["id"])
    body = {"model": "m", "input": "x", "conversation": made["id"]}
    full = await gateway.client.post(RESPONSES, json=body)
    assert error_of(full)[:2] == (400, "storage_quota_exceeded")
    assert len(gateway.engine.bodies) == 1


async def test_pages_are_no_larger_than_a_body(
    gateway: StatefulGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that would be ends early and says that more follow; the next one goes on there."""
    made = (await gateway.client.post("/v1/conversations", json={})).json()
    place = f"/v1/conversations/{made['id']}/items"
    for letter in "abc":
        item = {"role": "user", "content": letter * 1000}
        await gateway.client.post(place, json={"items": [item]})
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", 2500)
    page = await gateway.get(f"{place}?order=asc")
    assert ([text[0] for text in map(str, texts(page["data"]))], page["has_more"]) == (
        ["a", "b"],
        True,
    )
    rest = await gateway.get(f"{place}?order=asc&after={page['last_id']}")
    assert ([text[0] for text in map(str, texts(rest["data"]))], rest["has_more"]) == (
        ["c"],
        False,
    )
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", 10)
    assert len((await gateway.get(f"{place}?limit=2"))["data"]) == 1


async def test_state_looks_at_sizes_before_it_reads(gateway: StatefulGateway) -> None:
    """A history that is too large is not read, nor an item that differs by its size alone."""
    conversation = await store_large_item(gateway)
    gateway.surface.configure(max_body_mb=1)
    tracemalloc.start()
    body = {"model": "m", "input": "x", "conversation": conversation}
    refused = await gateway.client.post(RESPONSES, json=body)
    assert error_of(refused)[:2] == (400, "context_length_exceeded")
    await gateway.respond(input=[{"id": "msg_large", "role": "user", "content": "small"}])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < LARGE


async def test_a_state_that_hangs_delays_no_answer_for_long(
    gateway: StatefulGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What need not be stored waits a moment for it, and the next answers not at all."""
    monkeypatch.setattr(response_keeper, "KEEP_TIMEOUT_S", 0.05)
    asked: list[str] = []

    async def hang(_project: str, _method: str, path: str, _body: bytes = b"") -> StateAnswer:
        asked.append(path)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(gateway.state, "request", hang)

    def go_away() -> None:
        monkeypatch.setattr(StateCalls, "is_away", True)

    async with asyncio.timeout(PATIENCE_S):
        made = await gateway.respond(input="Hi")
    assert (made["store"], len(asked)) == (False, 1)
    # One that State was there for when it began does not wait for it in the end, either.
    monkeypatch.setattr(StateCalls, "is_away", False)
    gateway.engine.before_end = go_away
    await gateway.respond(input="Hi")
    assert len(asked) == 1


async def test_an_answer_that_is_not_stored_counts_as_an_error(
    gateway: StatefulGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics and logs have the status that its client got, or would have."""
    for is_stream in (False, True):
        gateway.state.is_away = False
        monkeypatch.setattr(StateCalls, "is_away", False)
        gateway.engine.before_end = lambda: setattr(gateway.state, "is_away", True)
        for path, fields in ((RESPONSES, {"input": "Hi"}), (CHAT, {"messages": []})):
            gateway.state.is_away = False
            body: dict[str, object] = {"model": "m", "store": True, "stream": is_stream, **fields}
            found = await gateway.client.post(path, json=body)
            row = await gateway.get(f"/gateway/requests/{found.headers['x-request-id']}")
            assert row["data"][0]["status"] == 503, (path, is_stream)


async def test_threads_are_deleted_in_small_transactions(
    gateway: StatefulGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread may take several of them; one that was continued meanwhile stays."""
    monkeypatch.setattr(state_upkeep, "MOST", 1)
    for name in "ab":
        first = await gateway.respond(input=name)
        second = await gateway.respond(input="x", previous_response_id=first["id"])
    await gateway.client.delete(f"{RESPONSES}/{first['id']}")
    state = gateway.state.state
    later_s = state.now_s + 30 * 86_400
    found = await state.read(lambda c: responses.expired_threads(c, later_s, 9))
    assert len(found) == 2
    gateway.clock.now_s += 86_400
    await gateway.respond(input="y", previous_response_id=second["id"])
    gateway.clock.now_s = later_s
    await state.write(lambda c: responses.delete_expired_threads(c, found, later_s, 9))
    assert (await gateway.rows())["responses"] == 3
    gateway.clock.now_s += 86_400
    await gateway.upkeep()
    assert await gateway.rows() == {"responses": 0, "response_items": 0, "response_item_places": 0}
