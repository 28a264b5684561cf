"""Tests of responses in the background: polling, events, cancelling, and routers that end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse

from gateway.http.state.arrivals import Arrivals
from gateway.http.state.responses import StoredResponses
from gateway.store.database import Database, DatabaseUnavailable
from gateway.store.state_upkeep import StateUpkeep
from tests.unit.conftest import PATIENCE_S
from tests.unit.gateway.responses.conftest import StatefulGateway, end_background
from tests.unit.stateful import RESPONSES, Json, events_in, in_process_state
from tests.unit.surface import error_of

POLL_S = 0.02


async def until(gateway: StatefulGateway, response_id: str, *statuses: str) -> Json:
    """Poll a response until it has one of these statuses."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await gateway.get(f"{RESPONSES}/{response_id}")
            if found["status"] in statuses:
                return found
            await asyncio.sleep(POLL_S)


async def test_a_response_is_made_in_the_background(gateway: StatefulGateway) -> None:
    """It is queued at once, completed later, and can be continued then."""
    release = asyncio.Event()
    gateway.engine.before_end = release.wait
    queued = await gateway.respond(input="One", background=True, metadata={"a": "b"})
    assert (queued["status"], queued["background"], queued["store"]) == ("queued", True, True)
    assert queued["metadata"] == {"a": "b"}
    body = {"model": "m", "input": "x", "previous_response_id": queued["id"]}
    early = await gateway.client.post(RESPONSES, json=body)
    assert error_of(early) == (400, "invalid_value", "previous_response_id")
    release.set()
    done = await until(gateway, queued["id"], "completed")
    assert done["output"][0]["content"][0]["text"] == "Hello."
    assert (done["id"], done["background"]) == (queued["id"], True)
    assert "background" not in gateway.engine.bodies[0]
    await gateway.respond(input="Two", previous_response_id=queued["id"])
    assert len(gateway.engine.bodies[-1]["input"]) == 3


async def test_events_can_be_read_from_any_place(gateway: StatefulGateway) -> None:
    """A stream of one that is made in the background is the same when it is read again."""
    body = {"model": "m", "input": "Hi", "background": True, "stream": True}
    events = events_in((await gateway.client.post(RESPONSES, json=body)).text)
    assert events[-1]["type"] == "response.completed"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    response_id = events[0]["response"]["id"]
    place = f"{RESPONSES}/{response_id}?stream=true"
    assert events_in((await gateway.client.get(place)).text) == events
    rest = await gateway.client.get(f"{place}&starting_after=4")
    assert events_in(rest.text) == events[5:]
    assert await gateway.get(f"{RESPONSES}/{response_id}") == events[-1]["response"]


async def test_a_response_in_the_background_is_cancelled(gateway: StatefulGateway) -> None:
    """It ends at once, and its engine stops; another cancellation changes nothing."""
    gateway.engine.before_end = asyncio.Event().wait
    queued = await gateway.respond(input="One", background=True)
    await until(gateway, queued["id"], "in_progress")
    place = f"{RESPONSES}/{queued['id']}"
    cancelled = (await gateway.client.post(f"{place}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    assert (await gateway.client.post(f"{place}/cancel")).json() == cancelled
    assert events_in((await gateway.client.get(f"{place}?stream=true")).text)[-1]["type"] == (
        "response.cancelled"
    )
    async with asyncio.timeout(PATIENCE_S):
        while gateway.surface.context.drain.running:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(POLL_S)


async def test_only_responses_in_the_background_are_cancelled(gateway: StatefulGateway) -> None:
    """Others have ended when their ids are known; they have no events, either."""
    made = await gateway.respond(input="One")
    refused = await gateway.client.post(f"{RESPONSES}/{made['id']}/cancel")
    assert error_of(refused)[:2] == (400, "invalid_value")
    streamed = await gateway.client.get(f"{RESPONSES}/{made['id']}?stream=true")
    assert error_of(streamed) == (400, "invalid_value", "stream")


async def test_a_response_fails_with_its_request(gateway: StatefulGateway) -> None:
    """An error of the gateway's is the response's, as nobody else gets it."""
    queued = await gateway.client.post(
        RESPONSES, json={"model": "nobody", "input": "x", "background": True}
    )
    failed = await until(gateway, queued.json()["id"], "failed")
    assert failed["error"]["code"] == "model_not_found"


async def test_a_response_whose_router_ends_has_failed(gateway: StatefulGateway) -> None:
    """A router that is stopped says so itself."""
    gateway.engine.before_end = asyncio.Event().wait
    queued = await gateway.respond(input="One", background=True)
    await until(gateway, queued["id"], "in_progress")
    await end_background(gateway.surface)
    failed = await gateway.get(f"{RESPONSES}/{queued['id']}")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")


async def test_a_response_whose_router_is_killed_has_failed(gateway: StatefulGateway) -> None:
    """A router that says nothing any more is taken for dead, and nobody waits for ever."""
    gateway.engine.before_end = asyncio.Event().wait
    queued = await gateway.respond(input="One", background=True)
    await until(gateway, queued["id"], "in_progress")
    gateway.clock.now_s += 60
    failed = await gateway.get(f"{RESPONSES}/{queued['id']}")
    assert failed["status"] == "failed"
    events = events_in((await gateway.client.get(f"{RESPONSES}/{queued['id']}?stream=true")).text)
    assert events[-1]["type"] == "response.failed"


async def test_a_response_outlives_an_absence_of_state(
    gateway: StatefulGateway, tmp_path: Path
) -> None:
    """A State that comes back hears routers for a while before it takes them for dead."""
    gateway.engine.before_end = asyncio.Event().wait
    queued = await gateway.respond(input="One", background=True)
    await until(gateway, queued["id"], "in_progress")
    gateway.state.is_away = True  # from now on its router is not heard
    gateway.clock.now_s += 60
    async with in_process_state(tmp_path, gateway.clock) as again:
        await StateUpkeep(again.state).expire()
        stored = StoredResponses(again.state, Arrivals())
        assert (await stored.find("", queued["id"])).status == "in_progress"
        gateway.clock.now_s += 20
        assert (await stored.find("", queued["id"])).status == "failed"


async def test_a_deleted_conversation_gets_no_more_items(gateway: StatefulGateway) -> None:
    """A response that ends later leaves no rows behind that nobody can delete."""
    made = (await gateway.client.post("/v1/conversations", json={})).json()
    release = asyncio.Event()
    gateway.engine.before_end = release.wait
    queued = await gateway.respond(input="One", background=True, conversation=made["id"])
    await until(gateway, queued["id"], "in_progress")
    await gateway.client.delete(f"/v1/conversations/{made['id']}")
    release.set()
    await until(gateway, queued["id"], "completed")
    assert (await gateway.rows())["response_item_places"] == 2


async def _refuse(*_: object) -> None:
    raise DatabaseUnavailable


async def test_a_response_outlives_an_absence_of_the_database(
    gateway: StatefulGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routers could not say that they live; they have time to once it is back."""
    gateway.engine.before_end = asyncio.Event().wait
    queued = await gateway.respond(input="One", background=True)
    await until(gateway, queued["id"], "in_progress")
    gateway.state.is_away = True
    stored = StoredResponses(gateway.state.state, Arrivals())
    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", _refuse)
        with pytest.raises(DatabaseUnavailable):
            await gateway.upkeep()
    gateway.clock.now_s += 60
    await gateway.upkeep()
    assert (await stored.find("", queued["id"])).status == "in_progress"
    gateway.clock.now_s += 20
    assert (await stored.find("", queued["id"])).status == "failed"


async def test_a_response_that_is_deleted_ends_its_streams_with_an_error(
    gateway: StatefulGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows it is told, as of a database that goes away; the connection is not cut."""
    gateway.engine.before_end = asyncio.Event().wait
    queued = await gateway.respond(input="One", background=True)
    await until(gateway, queued["id"], "in_progress")
    stored = StoredResponses(gateway.state.state, Arrivals())
    row = await stored.find("", queued["id"])
    with monkeypatch.context() as patched:
        response = stored.stream("", row, 3)
        patched.setattr(Database, "read", _refuse)
        (event,) = events_in("".join([part async for part in parts_of(response)]))
    assert (event["error"]["code"], event["sequence_number"]) == ("state_unavailable", 4)
    parts = parts_of(stored.stream("", row, -1))
    await anext(parts)
    await stored.delete("", queued["id"])
    (event,) = events_in("".join([part async for part in parts if "error" in part]))
    assert event["error"]["code"] == "object_not_found"
    assert event["sequence_number"] > 0


async def parts_of(response: Response) -> AsyncIterator[str]:
    """The parts of a streamed response."""
    assert isinstance(response, StreamingResponse)
    async for part in response.body_iterator:
        yield bytes(part).decode() if not isinstance(part, str) else part


async def test_a_place_that_no_event_can_have_is_refused(gateway: StatefulGateway) -> None:
    """A number that no database holds is an error of the request, not of its stream."""
    place = f"{RESPONSES}/x?stream=true&starting_after=99999999999999999999"
    assert error_of(await gateway.client.get(place))[0] == 400


async def test_background_needs_storage(gateway: StatefulGateway) -> None:
    """What is not stored cannot be polled."""
    body = {"model": "m", "input": "x", "background": True, "store": False}
    refused = await gateway.client.post(RESPONSES, json=body)
    assert error_of(refused) == (400, "invalid_value", "background")
