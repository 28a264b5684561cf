"""What State's application does for all routes: limits of bodies, and errors."""

import asyncio
import json
from typing import Any

import pytest

from gateway.store.database import DatabaseUnavailable
from tests.unit.gateway.http.state.stored import StateApi, error_of

MIB = 1 << 20


@pytest.mark.parametrize("path", ["/v1/uploads", "/v1/uploads/u/complete", "/v1/batches"])
async def test_bodies_that_only_name_things_are_small(api: StateApi, path: str) -> None:
    """All their fields are looked at, which takes long for millions of them."""
    body = json.dumps({f"field_{number}": 1 for number in range(80_000)})
    assert len(body) > MIB
    async with api.http() as http:
        answer = await http.post(path, content=body)
    assert error_of(answer) == (413, "body_too_large", None)


async def test_bodies_of_message_batches_may_be_large(api: StateApi) -> None:
    """They are its requests."""
    async with api.http() as http:
        answer = await http.post("/v1/messages/batches", content=b"[" + bytes(2 * MIB))
    assert answer.status_code == 400


async def test_bodies_of_a_project_have_a_budget(
    api: StateApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of its clients send; other projects are not held up."""
    monkeypatch.setattr("gateway.http.state.app.MAX_BODIES_MB", 64)
    monkeypatch.setattr("gateway.serving.body_budget.WAIT_S", 0.1)
    end = asyncio.Event()

    async def slow() -> Any:
        yield bytes(MIB)
        await end.wait()

    headers = {"content-length": str(12 * MIB)}
    async with api.http() as http, api.http("proj_b") as other:
        sending = asyncio.create_task(
            http.post("/v1/conversations", content=slow(), headers=headers)
        )
        await asyncio.sleep(0.05)
        refused = await http.post("/v1/conversations", content=bytes(12 * MIB))
        assert error_of(refused) == (429, "body_budget_exceeded", None)
        assert (await other.post("/v1/conversations", content=bytes(12 * MIB))).status_code == 400
        end.set()
        await sending
        assert (await http.post("/v1/conversations", content=bytes(12 * MIB))).status_code == 400


async def test_errors_have_the_shape_of_their_api(api: StateApi) -> None:
    """With the id that the router gave the request, also where the database is away."""

    async def fail(*_: object) -> None:
        raise DatabaseUnavailable

    headers = {"x-request-id": "req-7"}
    async with api.http() as http:
        unknown = await http.get("/v1/messages/batches/none", headers=headers)
        control = await http.get("/v1/messages/batches/%01", headers=headers)
        api.state.database.read = fail  # type: ignore[method-assign,assignment]
        down = await http.get("/v1/messages/batches/none", headers=headers)
        files = await http.get("/v1/files", headers=headers)
    for answer, status, kind in (
        (unknown, 404, "not_found_error"),
        (control, 400, "invalid_request_error"),
        (down, 503, "overloaded_error"),
    ):
        found = answer.json()
        assert (answer.status_code, found["error"]["type"]) == (status, kind)
        assert found["request_id"] == "req-7"
    assert down.headers["retry-after"] == "5"
    assert error_of(files) == (503, "state_unavailable", None)
