"""The HTTP surface: which request goes where, and what every kind of error looks like."""

import asyncio
import contextlib
import gzip
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.cold_start import MIN_BACKOFF_S
from gateway.asgi import App, Message
from gateway.config.route_paths import FORM_ROUTES, JSON_ROUTES
from gateway.config.serving_options import QueueOptions, ServingOptions
from gateway.routing.fleet import ModelState
from gateway.upstream.client import UpstreamClient
from gateway.upstream.engine_call import BUFFER_LIMIT
from tests.unit.conftest import PATIENCE_S, StartEngine, Visit, answer, chunked
from tests.unit.surface import CHAT, Surface, error_of, script
from tests.unit.targets import target_of

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
HALF = b"half" * (BUFFER_LIMIT // 3)
"""Of an answer that is too long to be held until it is whole."""


@pytest.fixture
def surface(upstream: UpstreamClient) -> Surface:
    """A surface without models."""
    return Surface(upstream)


@pytest.mark.parametrize("path", JSON_ROUTES)
async def test_json_routes_reach_the_models_engine(
    start_engine: StartEngine, surface: Surface, path: str
) -> None:
    """Each route is relayed under its own path to an engine of the model the body names."""
    other = await start_engine(script(answer(b'"other"')))
    engine = await start_engine(script(answer(b'"mine"')))
    surface.add("other", other, routes=tuple(JSON_ROUTES))
    surface.add("org/mine", engine, routes=tuple(JSON_ROUTES))
    async with surface.client() as client:
        response = await client.post(path + "?beta=true", json={"model": "org/mine"})
    assert (response.status_code, response.text) == (200, '"mine"')
    assert engine.requests[0].startswith(b"POST %b HTTP/1.1\r\n" % path.encode())
    assert other.requests == []


@pytest.mark.parametrize("path", FORM_ROUTES)
async def test_form_routes_reach_the_models_engine(
    start_engine: StartEngine, surface: Surface, path: str
) -> None:
    """An upload goes to the engine of the model its form names, byte for byte."""
    engine = await start_engine(script(answer(b"words")))
    surface.add("whisper", engine, routes=tuple(FORM_ROUTES))
    async with surface.client() as client:
        request = client.build_request(
            "POST", path, data={"model": "whisper"}, files={"file": ("a.wav", b"\x00RIFF")}
        )
        content = await request.aread()
        response = await client.send(request)
    assert response.text == "words"
    assert engine.requests[0].endswith(b"\r\n\r\n" + content)
    assert request.headers["content-type"].encode() in engine.requests[0]


async def test_requests_avoid_a_busy_replica(start_engine: StartEngine, surface: Surface) -> None:
    """While one replica works for this router, new requests go to the other."""
    thinking, go_on = asyncio.Event(), asyncio.Event()

    async def think(tracked: Visit) -> None:
        if b"slow" in tracked.request:
            thinking.set()
            await go_on.wait()
        await tracked.send(answer(b"ok"))

    engines = [await start_engine(think) for _ in range(2)]
    surface.add("m", *engines)
    async with surface.client() as client:
        slow = asyncio.create_task(client.post(CHAT, json={"model": "m", "user": "slow"}))
        await asyncio.wait_for(thinking.wait(), PATIENCE_S)
        for _ in range(4):
            await client.post(CHAT, json={"model": "m"})
        go_on.set()
        await slow
    assert sorted(len(engine.requests) for engine in engines) == [1, 4]


@pytest.mark.parametrize(
    ("method", "path", "content", "error"),
    [
        ("POST", CHAT, b"{", (400, "invalid_json", None)),
        ("POST", CHAT, b"[]", (400, "invalid_json", None)),
        ("POST", CHAT, b"{}", (400, "missing_required_parameter", "model")),
        ("POST", CHAT, b'{"model":1}', (400, "invalid_value", "model")),
        ("POST", CHAT, b'{"model":"x"}', (404, "model_not_found", "model")),
        ("POST", "/v1/embeddings", b'{"model":"m"}', (404, "unsupported_route", None)),
        ("POST", "/v1/audio/translations", b"{}", (400, "invalid_value", None)),
        ("GET", "/v1/embeddings", b"", (405, "method_not_allowed", None)),
        ("DELETE", "/v1/models", b"", (405, "method_not_allowed", None)),
        ("GET", "/v1/models/x/y", b"", (404, "model_not_found", "model")),
        ("POST", "/v1/nothing", b"{}", (404, "unknown_url", None)),
        ("POST", CHAT + "/", b"{}", (404, "unknown_url", None)),
        ("GET", "/v1/\N{SNOWMAN}", b"", (404, "unknown_url", None)),
        ("GET", "/v1/models/", b"", (404, "unknown_url", None)),
    ],
)
async def test_errors_have_openais_shape(
    start_engine: StartEngine,
    surface: Surface,
    method: str,
    path: str,
    content: bytes,
    error: tuple[int, str, str | None],
) -> None:
    """Every error, ours or FastAPI's, has the same shape, a code and a request id."""
    engine = await start_engine(script(answer(b"ok")))
    surface.add("m", engine)
    async with surface.client() as client:
        response = await client.request(method, path, content=content)
    assert error_of(response) == error
    assert engine.requests == []


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/batches"])
async def test_errors_on_messages_have_anthropics_shape(surface: Surface, path: str) -> None:
    """On FastAPI's routes, too; Anthropic's SDK finds the request's id in header and body."""
    async with surface.client() as client:
        response = await client.post(path, json={"model": "x"})
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    assert body["request_id"] == response.headers["request-id"]
    assert body["request_id"] == response.headers["x-request-id"]


async def test_a_wrong_method_gets_the_allowed_ones(surface: Surface) -> None:
    """405 comes with `Allow`, on both kinds of routes."""
    async with surface.client() as client:
        assert (await client.put(CHAT)).headers["allow"] == "POST, OPTIONS"
        assert (await client.put("/healthz")).headers["allow"] == "GET, HEAD"


async def test_options_names_the_methods(surface: Surface) -> None:
    """OPTIONS on an inference route is answered without a body."""
    async with surface.client() as client:
        response = await client.options(CHAT)
    assert (response.status_code, response.headers["allow"]) == (204, "POST, OPTIONS")


async def test_an_unsupported_route_lists_the_supported_ones(
    start_engine: StartEngine, surface: Surface
) -> None:
    """The error for a chat with an embedding model lists the routes that it serves."""
    engine = await start_engine(script(answer(b"ok")))
    surface.add("e", engine, routes=("/v1/embeddings", "/tokenize"))
    async with surface.client() as client:
        response = await client.post(CHAT, json={"model": "e"})
    assert response.json()["error"]["message"] == (
        "The model `e` does not serve /v1/chat/completions; it serves /v1/embeddings, /tokenize."
    )


@pytest.mark.parametrize(
    ("state", "reason", "retry_s"),
    [
        (ModelState.STARTING, "because, for longer than 0.1 s", "13"),
        (ModelState.SCALED_TO_ZERO, "because, for longer than 0.1 s", "13"),
        (ModelState.UNHEALTHY, "because", str(round(MIN_BACKOFF_S))),
    ],
)
async def test_model_without_engine_is_unavailable_with_its_reason(
    surface: Surface, state: ModelState, reason: str, retry_s: str
) -> None:
    """503 says why, and when to retry; an engine is requested, and awaited if one may start."""
    model = surface.add("m")
    model.state, model.reason, model.start_s = state, "because", 12.5
    model.options = ServingOptions(cold_start_timeout_s=0.1)
    async with surface.client() as client:
        response = await client.post(CHAT, json={"model": "m"})
    assert error_of(response) == (503, "model_unavailable", "model")
    assert response.json()["error"]["message"] == f"The model `m` is {model.condition}: {reason}"
    assert response.headers["retry-after"] == retry_s
    assert set(surface.woken) == {"m"}


async def test_a_model_whose_engine_is_gone_is_unavailable(
    start_engine: StartEngine, surface: Surface
) -> None:
    """A successor is waited for as long as requests wait, and then it is 503 in our words."""
    engine = await start_engine(script(b""))
    surface.add("m", engine).options = ServingOptions(
        queue=QueueOptions(max_wait_s=0.1), cold_start_timeout_s=0.1
    )
    await engine.stop()
    async with surface.client() as client:
        response = await client.post(CHAT, json={"model": "m"})
    assert error_of(response) == (503, "model_unavailable", "model")
    assert int(response.headers["retry-after"]) >= 1


async def test_defect_gives_500_without_internals(
    surface: Surface, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is logged with the request id; the client sees no details."""
    model = surface.add("m")
    model.replicas = 1  # type: ignore[assignment]
    async with surface.client() as client:
        for method, path in (("POST", CHAT), ("GET", "/v1/models")):
            response = await client.request(
                method, path, json={"model": "m"}, headers={"x-request-id": "req-7"}
            )
            assert error_of(response) == (500, "internal_error", None)
            assert "object" not in response.text
    assert caplog.text.count("request req-7") == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


async def test_body_over_the_limit_is_refused_unread(surface: Surface) -> None:
    """An announced length over the limit is answered without a byte of the body being read."""
    surface.configure(max_body_mb=1)

    async def receive() -> Message:
        raise AssertionError("the body was read")

    status, body = await raw_post(surface.app, receive, [(b"content-length", b"1048577")])
    assert (status, b"body_too_large" in body) == (413, True)


async def test_a_body_without_room_is_refused_unread(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body for which the budget gets no room is answered 429, and small ones go on."""
    monkeypatch.setattr("gateway.serving.body_budget.WAIT_S", 0.0)
    surface.configure(max_body_mb=32, max_bodies_mb=128)
    uploads = [asyncio.create_task(stuck_upload(surface.app, 15 << 20)) for _ in range(2)]
    await asyncio.sleep(0)

    async def receive() -> Message:
        raise AssertionError("the body was read")

    status, body = await raw_post(surface.app, receive, [(b"content-length", b"%d" % (15 << 20))])
    assert (status, b"body_budget_exceeded" in body) == (429, True)
    async with surface.client() as client:
        response = await client.post(CHAT, json={"model": "x"})
    assert error_of(response) == (404, "model_not_found", "model")
    for upload in uploads:
        upload.cancel()
    await asyncio.gather(*uploads, return_exceptions=True)


async def stuck_upload(app: App, size: int) -> None:
    """Send a body of that many bytes, but not its end."""
    parts = [bytes(size)]

    async def receive() -> Message:
        if not parts:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": parts.pop(), "more_body": True}

    await raw_post(app, receive, [])


@pytest.mark.parametrize("encoding", ["gzip", " GZIP", "identity, gzip"])
async def test_an_engine_gets_the_decoded_body(
    start_engine: StartEngine, surface: Surface, encoding: str
) -> None:
    """A compressed body reaches the engine as it was before, with its length and no encoding."""
    engine = await start_engine(script(answer(b"ok")))
    surface.add("m", engine)
    async with surface.client() as client:
        response = await client.post(
            CHAT, content=gzip.compress(b'{"model":"m"}'), headers={"content-encoding": encoding}
        )
    assert response.text == "ok"
    head, _, body = engine.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"model":"m"}'
    assert b"content-length: 13" in head
    assert b"encoding" not in head


async def test_an_unsupported_encoding_is_refused_unread(surface: Surface) -> None:
    """The client learns what it may send instead, before its body is read."""

    async def receive() -> Message:
        raise AssertionError("the body was read")

    status, body = await raw_post(surface.app, receive, [(b"content-encoding", b"br")])
    assert (status, b"unsupported_content_encoding" in body) == (415, True)


async def test_an_unknown_transfer_encoding_is_refused_unread(surface: Surface) -> None:
    """The parser undoes the chunks only: what is in them would be taken for JSON."""

    async def receive() -> Message:
        raise AssertionError("the body was read")

    status, body = await raw_post(surface.app, receive, [(b"transfer-encoding", b"gzip, chunked")])
    assert (status, b"unsupported_transfer_encoding" in body) == (501, True)


async def test_a_wrong_priority_is_rejected_before_the_body_is_read(surface: Surface) -> None:
    """The headers are enough to know that the request is wrong."""

    async def receive() -> Message:
        raise AssertionError("the body was read")

    status, body = await raw_post(surface.app, receive, [(b"x-gateway-priority", b"high")])
    assert (status, b"x-gateway-priority" in body) == (400, True)


async def test_unannounced_body_is_counted(surface: Surface) -> None:
    """A chunked body is refused as soon as it passes the limit, not when it ends."""
    surface.configure(max_body_mb=1)
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b" " * 262_144, "more_body": True}

    status, body = await raw_post(surface.app, receive, [])
    assert (status, b"body_too_large" in body, read) == (413, True, 5)


async def test_limit_changes_while_running(start_engine: StartEngine, surface: Surface) -> None:
    """A body at the limit passes, and a new limit counts from the next request on."""
    engine = await start_engine(script(answer(b"ok")))
    surface.add("m", engine)
    content = b'{"model":"m"}'.ljust(1 << 20)
    surface.configure(max_body_mb=1)
    async with surface.client() as client:
        assert (await client.post(CHAT, content=content)).status_code == 200
        surface.configure(max_body_mb=0.5)
        response = await client.post(CHAT, content=content)
    assert error_of(response) == (413, "body_too_large", None)
    assert response.headers["connection"] == "close"
    assert "0.5 MiB" in response.text


@pytest.mark.parametrize("length", [b"-1", b"abc", b"1" * 5000])
async def test_an_invalid_length_is_a_client_error(surface: Surface, length: bytes) -> None:
    """A length that is no number never reaches `int()`."""

    async def receive() -> Message:
        raise AssertionError("the body was read")

    status, _ = await raw_post(surface.app, receive, [(b"content-length", length)])
    assert status == 400


async def test_client_that_leaves_before_its_body_gets_nothing(surface: Surface) -> None:
    """No client is left to be answered."""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ValueError, match="not enough values"):
        await raw_post(surface.app, receive, [])


async def raw_post(
    app: App, receive: Callable[[], Awaitable[Message]], headers: list[tuple[bytes, bytes]]
) -> tuple[int, bytes]:
    """Post to the chat route in plain ASGI."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers}
    await app(scope, receive, send)
    start, *bodies = sent
    return start["status"], b"".join(message["body"] for message in bodies)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=50), st.sampled_from([*JSON_ROUTES, *FORM_ROUTES]))
def test_no_body_gives_500(content: bytes, path: str) -> None:
    """Any bytes posted to any route are answered with a client error."""

    async def run() -> int:
        async with Surface(UpstreamClient()).client() as client:
            return (await client.post(path, content=content)).status_code

    assert asyncio.run(run()) in (400, 404)


async def test_a_request_id_is_forwarded_and_returned(
    start_engine: StartEngine, surface: Surface
) -> None:
    """A valid id of the client reaches the engine and returns once; an engine's id does not."""
    engine = await start_engine(script(answer(b"ok", b"x-request-id: engine")))
    surface.add("m", engine)
    async with surface.client() as client:
        given_id = await client.post(CHAT, json={"model": "m"}, headers={"x-request-id": "abc"})
        made_id = await client.post(CHAT, json={"model": "m"}, headers={"x-request-id": "a b"})
        health = await client.get("/healthz", headers={"x-request-id": "abc"})
    assert given_id.headers.get_list("x-request-id") == ["abc"]
    assert health.headers.get_list("x-request-id") == ["abc"]
    (made,) = made_id.headers.get_list("x-request-id")
    assert len(made) == 32
    assert b"\r\nx-request-id: abc\r\n" in engine.requests[0]
    assert b"\r\nx-request-id: %b\r\n" % made.encode() in engine.requests[1]


async def test_server_in_front_may_return_the_request_id(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Where Serve adds the header, we do not, but the engine still gets it."""
    surface = Surface(upstream)
    surface.app = surface.router.app.without_ids()
    engine = await start_engine(script(answer(b"ok")))
    surface.add("m", engine)
    async with surface.client() as client:
        for path in (CHAT, "/healthz", "/nothing"):
            response = await client.post(path, json={"model": "m"}, headers={"x-request-id": "a"})
            assert "x-request-id" not in response.headers
    assert b"\r\nx-request-id: a\r\n" in engine.requests[0]


async def test_models_are_listed_with_their_state(
    start_engine: StartEngine, surface: Surface
) -> None:
    """The list has OpenAI's shape, with each model's state and the reason for it."""
    engine = await start_engine(script(b""))
    surface.add("org/up", engine)
    surface.add("down").reason = "no GPU is free"
    up = {
        "id": "org/up",
        "object": "model",
        "created": 7,
        "owned_by": "ray-llm-gateway",
        "state": "ready",
        "replicas": 1,
        "max_model_len": 512,
    }
    down = {
        "id": "down",
        "object": "model",
        "created": 7,
        "owned_by": "ray-llm-gateway",
        "state": "starting",
        "reason": "no GPU is free",
        "replicas": 0,
    }
    async with surface.client() as client:
        assert (await client.get("/v1/models")).json() == {"object": "list", "data": [up, down]}
        assert (await client.get("/v1/models/org/up")).json() == up


async def test_a_model_whose_engines_hang_is_not_responding(
    start_engine: StartEngine, surface: Surface
) -> None:
    """One hanging engine of two is mentioned; with both, the model is `not_responding`."""
    engines = [await start_engine(script(b"")), await start_engine(script(b""))]
    model = surface.add("m", *engines)
    replicas = surface.router.pools.of(model).scheduler.replicas
    cards = []
    async with surface.client() as client:
        for replica in model.replicas.values():
            replicas.record_responding(replica, is_responding=False)
            cards.append((await client.get("/v1/models/m")).json())
        ready = await client.get("/readyz")

    assert [card["state"] for card in cards] == ["ready", "not_responding"]
    assert [card["replica_states"].get("not_responding") for card in cards] == [1, 2]
    assert cards[0]["reason"].startswith("1 of 2 engines do not respond")
    assert ready.status_code == 503
    assert ready.json()["reasons"]["m"].startswith("not responding: 2 of 2 engines")


async def test_ready_means_that_a_model_can_answer(
    start_engine: StartEngine, surface: Surface
) -> None:
    """`/readyz` gives reasons until the first model is ready; `/healthz` is always well."""
    surface.add("m").reason = "its weights are loading"
    async with surface.client() as client:
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["reasons"] == {"m": "starting: its weights are loading"}
        assert (await client.get("/healthz")).status_code == 200
        surface.add("n", await start_engine(script(b"")))
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/health"), ("HEAD", "/health"), ("GET", "/ping"), ("POST", "/ping")],
)
async def test_vllms_probes_are_answered(surface: Surface, method: str, path: str) -> None:
    """Clients that ask vLLM whether it is up get the empty answer that vLLM gives."""
    async with surface.client() as client:
        response = await client.request(method, path)
    assert (response.status_code, response.content) == (200, b"")


async def test_the_version_has_vllms_shape(surface: Surface) -> None:
    """`/version` is an object with one text."""
    async with surface.client() as client:
        version = (await client.get("/version")).json()
    assert list(version) == ["version"]
    assert isinstance(version["version"], str)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m", "/healthz", "/version", "/docs"])
async def test_every_get_route_answers_head(surface: Surface, path: str) -> None:
    """HEAD has GET's status and length, and no body; 405 names it."""
    surface.add("m")
    async with surface.client() as client:
        get, head = await client.get(path), await client.head(path)
        wrong = await client.delete(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert wrong.headers["allow"] == "GET, HEAD"


async def test_head_is_get_without_a_body(surface: Surface) -> None:
    """Probes with HEAD get GET's status and headers."""
    async with surface.client() as client:
        response = await client.head("/healthz")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 0


async def test_openapi_describes_the_inference_routes(surface: Surface) -> None:
    """Routes that never reach FastAPI are documented all the same."""
    async with surface.client() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    for routes, kind in ((JSON_ROUTES, "application/json"), (FORM_ROUTES, "multipart/form-data")):
        for path in routes:
            schema = paths[path]["post"]["requestBody"]["content"][kind]["schema"]
            assert "model" in schema["required"]


async def test_the_docs_page_lists_the_routes_without_the_internet(surface: Surface) -> None:
    """Every route is there, and the page loads nothing from anywhere else."""
    async with surface.client() as client:
        page = (await client.get("/docs")).text
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert all(f"<code>{path}</code>" in page for path in paths)
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["openapi.json"]


async def test_websockets_are_closed(surface: Surface) -> None:
    """A websocket is closed before it opens, under a server that can do no more."""
    sent = await handshake(surface.app, CHAT, {})
    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [(CHAT, 426, b"upgrade_refused"), ("/v1/realtime", 404, b"unknown_url")],
)
async def test_websockets_are_answered_with_an_error(
    surface: Surface, path: str, status: int, code: bytes
) -> None:
    """Where the server can, the handshake gets an error in the shape of all others."""
    sent = await handshake(surface.app, path, {"websocket.http.response": {}})
    start, body = sent
    assert start["type"] == "websocket.http.response.start"
    assert (start["status"], code in body["body"]) == (status, True)
    assert (b"content-type", b"application/json") in start["headers"]


async def handshake(app: App, path: str, extensions: dict[str, object]) -> list[Message]:
    """All that is sent for a WebSocket's handshake."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "headers": [], "extensions": extensions}
    await app(scope, receive, send)
    return sent


async def test_a_websocket_s_request_is_refused(surface: Surface) -> None:
    """A server without WebSockets hands the handshake on as an ordinary request."""
    async with surface.client() as client:
        response = await client.get(CHAT, headers={"upgrade": "WebSocket"})
    assert error_of(response) == (426, "upgrade_refused", None)
    assert response.headers["upgrade"] == "HTTP/1.1"


async def test_streams_are_not_held_back(start_engine: StartEngine, surface: Surface) -> None:
    """Proxies let the events of a stream through; other answers say nothing of it."""
    events = EVENTS.replace(b"\r\n\r\n", b"\r\ncache-control: private\r\n\r\n")
    surface.add("s", await start_engine(script(events, chunked(b"data: 1\n\n"), b"0\r\n\r\n")))
    surface.add("m", await start_engine(script(answer(b"{}"))))
    async with surface.client() as client:
        stream = await client.post(CHAT, json={"model": "s", "stream": True})
        whole = await client.post(CHAT, json={"model": "m", "stream": True})
        missing = await client.post(CHAT, json={"model": "x", "stream": True})
    assert stream.headers.get_list("cache-control") == ["no-cache"]
    assert stream.headers["x-accel-buffering"] == "no"
    for other in (whole, missing):
        assert "x-accel-buffering" not in other.headers
        assert "cache-control" not in other.headers


async def test_shutdown_closes_the_connections_to_engines(
    start_engine: StartEngine, surface: Surface
) -> None:
    """The application's lifespan ends with the relay closed."""
    engine = await start_engine(script(answer(b"ok")))
    surface.add("m", engine)
    async with serving(surface.app) as port:
        await exchange(port, b'{"model":"m"}')
        assert not engine.gone.is_set()
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)


@contextlib.asynccontextmanager
async def serving(app: App) -> AsyncIterator[int]:
    """Serve `app` on a free port with the server that Ray Serve uses."""
    config = uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    with socket.create_server(("127.0.0.1", 0)) as sock:
        task = asyncio.create_task(server.serve(sockets=[sock]))
        yield sock.getsockname()[1]
        server.should_exit = True
        await task


def request_bytes(body: bytes, *headers: bytes) -> bytes:
    """A chat request on the wire."""
    lines = [b"POST " + CHAT.encode() + b" HTTP/1.1", b"host: x", *headers]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body)]) + b"\r\n\r\n" + body


async def exchange(port: int, body: bytes) -> bytes:
    """Send a request and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_bytes(body, b"connection: close"))
    received = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    return received


@pytest.mark.parametrize(
    "sent", [b"", EVENTS + chunked(b"data: 1\n\n")], ids=["while thinking", "while streaming"]
)
async def test_client_that_leaves_frees_the_engine(
    start_engine: StartEngine, surface: Surface, sent: bytes
) -> None:
    """When a client leaves, the engine's connection closes, under a server that only reports it."""
    thinking = asyncio.Event()

    async def think(tracked: Visit) -> None:
        await tracked.send(sent)
        thinking.set()
        await tracked.until_gone()
        engine.gone.set()

    engine = await start_engine(think)
    model = surface.add("m", engine)
    async with serving(surface.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes(b'{"model":"m","stream":true}'))
        if sent:
            await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), PATIENCE_S)
        await asyncio.wait_for(thinking.wait(), PATIENCE_S)
        writer.close()
        await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
    (candidate,) = surface.pools.of(model).scheduler.choose(target_of(model=model)).candidates
    assert candidate.requests == 0


async def test_cancelled_request_frees_the_engine(
    start_engine: StartEngine, surface: Surface
) -> None:
    """Serve cancels the request of a client that has left, and it stays a cancellation."""
    thinking = asyncio.Event()

    async def think(tracked: Visit) -> None:
        thinking.set()
        await tracked.until_gone()
        engine.gone.set()

    engine = await start_engine(think)
    surface.add("m", engine)
    async with surface.client() as client:
        task = asyncio.create_task(client.post(CHAT, json={"model": "m"}))
        await asyncio.wait_for(thinking.wait(), PATIENCE_S)
        task.cancel()
        await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_broken_body_is_cut_at_the_client(
    start_engine: StartEngine, surface: Surface
) -> None:
    """An answer that cannot be completed ends before its length, and its connection with it."""

    async def break_off(tracked: Visit) -> None:
        await tracked.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n", HALF)
        tracked.writer.close()

    engine = await start_engine(break_off)
    surface.add("m", engine)
    async with serving(surface.app) as port:
        received = await exchange(port, b'{"model":"m"}')
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-length: 9999999" in head
    assert body == HALF


async def test_broken_chunked_body_has_no_end_at_the_client(
    start_engine: StartEngine, surface: Surface
) -> None:
    """Without a length, the missing last chunk shows the client that the body is incomplete."""

    async def break_off(tracked: Visit) -> None:
        await tracked.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunked(HALF))
        tracked.writer.close()

    engine = await start_engine(break_off)
    surface.add("m", engine)
    async with serving(surface.app) as port:
        received = await exchange(port, b'{"model":"m"}')
    assert received.endswith(b"half\r\n")
