"""Requests for files go through a router to State's own server, and back, as they come."""

import asyncio
import gzip
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from deployments.private_server import PrivateServer, server_config
from deployments.serve_internals.uvicorn_server import EmbeddedServer
from gateway.asgi import App, Message, Receive, Scope, Send
from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.config.loader import parse_gateway
from gateway.config.state import StateConfig
from gateway.http.state.app import StateApp
from gateway.routing.fleet import Fleet
from gateway.serving import body, http_state_client
from gateway.serving.http_state_client import HttpStateClient
from gateway.serving.state_client import StateUnavailable
from gateway.serving.state_location import StateLocation
from gateway.store.database import Database
from gateway.store.file_storage import FileStorage
from gateway.store.project_state import ProjectState
from tests.unit.conftest import PATIENCE_S
from tests.unit.projects import KEY, OTHER_KEY, bearer, hash_of, project, write_projects

MIB = 1 << 20
POLL_S = 0.01


class Whereabouts:
    """Where State is, as Serve would tell; nowhere if it does not run."""

    def __init__(self) -> None:
        self.server: PrivateServer | None = None
        self.asked = 0

    async def locate(self) -> StateLocation:
        """Where it is."""
        self.asked += 1
        if self.server is None:
            raise StateUnavailable("there is none")
        return StateLocation(self.server.host, self.server.port, self.server.key)


class Gateway:
    """A router on a port of its own, and State, which can be stopped and started."""

    def __init__(self, state: ProjectState, projects: str) -> None:
        self.state = state
        self.whereabouts = Whereabouts()
        self.client = HttpStateClient(self.whereabouts)
        self.router = _router(self.client, projects)
        self._server = _Listening(self.router.app)
        self.app: App = StateApp(state)

    async def start(self) -> None:
        """Start both."""
        await self._server.start()
        await self.start_state()

    async def start_state(self, app: App | None = None) -> PrivateServer:
        """Start State anew, on another port and with another key."""
        server = PrivateServer(app or self.app, "127.0.0.1", "State")
        await server.start()
        self.whereabouts.server = server
        return server

    async def stop_state(self) -> None:
        """Stop State."""
        if self.whereabouts.server is not None:
            await self.whereabouts.server.stop()
            self.whereabouts.server = None

    async def close(self) -> None:
        """Stop both."""
        await self.client.close()
        await self.stop_state()
        await self._server.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Where the router listens."""
        return "127.0.0.1", self._server.port

    def http(self, key: str = KEY) -> httpx.AsyncClient:
        """A client with a key."""
        url = f"http://127.0.0.1:{self._server.port}"
        return httpx.AsyncClient(base_url=url, headers=bearer(key), timeout=PATIENCE_S)

    async def stored(self) -> int:
        """How many files are in the storage, whole or not."""
        return len(await self.state.files.keys("files"))

    async def wait_until_stored(self, count: int) -> None:
        """Wait until there are so many."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.stored() != count:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(POLL_S)


class _Listening:
    """A server of the router's application."""

    def __init__(self, app: App) -> None:
        self._uvicorn = EmbeddedServer(server_config(app))
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        config: uvicorn.Config = self._uvicorn.config
        config.port = 0
        self._task = asyncio.create_task(self._uvicorn.serve())
        while not self._uvicorn.started:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(POLL_S)
        self.port = self._uvicorn.servers[0].sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close all connections."""
        self._uvicorn.should_exit = True
        await self._task


def _router(client: HttpStateClient | None, projects: str) -> AssembledRouter:
    options = RouterOptions(is_local=True, state=client)
    router = build_router(Fleet(), lambda *_: None, options=options)
    auth = {"projects": [projects]}
    router.live_config.apply(parse_gateway({"open_on_loopback": True, "auth": auth}))
    return router


@pytest.fixture
def projects(tmp_path: Path) -> str:
    """A file with two projects."""
    return write_projects(
        tmp_path / "projects.yaml",
        project("search", KEY, id="search"),
        project("tests", OTHER_KEY, id="tests"),
    )


@pytest.fixture
async def gateway(tmp_path: Path, projects: str) -> AsyncIterator[Gateway]:
    """A gateway with State."""
    database = await Database.open(f"sqlite:///{tmp_path}/state.db")
    state = ProjectState(database, FileStorage(str(tmp_path / "files")), StateConfig())
    found = Gateway(state, projects)
    await found.start()
    yield found
    await found.close()
    await state.close()


async def store(client: httpx.AsyncClient, content: bytes = b"abc") -> httpx.Response:
    """Store a file."""
    return await client.post(
        "/v1/files", data={"purpose": "user_data"}, files={"file": ("a", content)}
    )


async def test_a_file_goes_through_and_comes_back(gateway: Gateway) -> None:
    """Byte for byte, with its length and the gateway's own headers."""
    content = os.urandom(3 * MIB + 7)
    async with gateway.http() as client:
        made = await store(client, content)
        file_id = made.json()["id"]
        read = await client.get(f"/v1/files/{file_id}/content")
        head = await client.head(f"/v1/files/{file_id}/content")
        listed = await client.get("/v1/files", params={"purpose": "user_data"})

    assert made.status_code == 200
    assert read.content == content
    assert read.headers["content-length"] == str(len(content)) == head.headers["content-length"]
    assert head.content == b""
    assert read.headers["x-request-id"]
    assert [file["id"] for file in listed.json()["data"]] == [file_id]


async def test_clients_cannot_say_whose_they_are(gateway: Gateway) -> None:
    """The project is that of their key, whatever headers they send."""
    forged = {"x-gateway-project": "tests"}
    async with gateway.http() as client, gateway.http(OTHER_KEY) as other:
        file_id = (await store(other)).json()["id"]
        answer = await client.get(f"/v1/files/{file_id}", headers=forged)
        assert answer.status_code == 404
        assert (await other.get(f"/v1/files/{file_id}")).status_code == 200


async def test_a_restricted_key_creates_no_batches(gateway: Gateway, tmp_path: Path) -> None:
    """Its project's other keys do, and it may look at what they have made."""
    keys = [{"hash": hash_of(KEY), "models": ["m"]}, {"hash": hash_of(OTHER_KEY)}]
    path = write_projects(tmp_path / "restricted.yaml", {**project("search"), "keys": keys})
    config = {"open_on_loopback": True, "auth": {"projects": [path]}}
    gateway.router.live_config.apply(parse_gateway(config))
    async with gateway.http() as client, gateway.http(OTHER_KEY) as other:
        for route in ("/v1/batches", "/v1/messages/batches"):
            refused = await client.post(route, json={})
            assert (refused.status_code, (await client.get(route)).status_code) == (403, 200)
            assert "route_not_allowed" in refused.text or "permission_error" in refused.text
            assert (await other.post(route, json={})).status_code == 400


async def test_only_routers_reach_state(gateway: Gateway) -> None:
    """Its port wants its key, and what is below /internal is not for clients."""
    server = gateway.whereabouts.server
    assert server is not None
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{server.host}:{server.port}/v1/files")
        assert answer.status_code == 401
    async with gateway.http() as client:
        for path in ("/internal/x", "/v1/files/../../internal/x", "/v1/files/%2e%2e/x"):
            assert (await client.get(path)).status_code == 404


async def test_without_state_its_routes_say_what_is_missing(projects: str) -> None:
    """And nothing else changes."""
    router = _router(None, projects)
    transport = httpx.ASGITransport(router.app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=bearer()
    ) as client:
        for method, path in (
            ("GET", "/v1/files"),
            ("POST", "/v1/uploads"),
            ("GET", "/v1/batches/b"),
            ("GET", "/v1/responses/r"),
            ("GET", "/v1/chat/completions"),
            ("DELETE", "/v1/chat/completions/c"),
        ):
            answer = await client.request(method, path)
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "state_not_configured"
            assert "`state`" in answer.json()["error"]["message"]
        assert (await client.get("/v1/filesystem")).json()["error"]["code"] == "unknown_url"


async def test_while_state_is_away_its_routes_alone_fail(gateway: Gateway) -> None:
    """With a time to come back; once it runs again, elsewhere, it is found."""
    await gateway.stop_state()
    async with gateway.http() as client:
        refused = [await store(client), await client.get("/v1/files")]
        for answer in refused:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "state_unavailable"
            assert answer.headers["retry-after"] == "5"
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
        await gateway.start_state()
        assert (await store(client)).status_code == 200


async def test_that_state_is_away_is_logged(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, however many ask."""
    await gateway.stop_state()
    async with gateway.http() as client:
        for _ in range(3):
            assert (await client.get("/v1/files")).status_code == 503
    lines = [line for line in caplog.messages if line.startswith("State cannot be reached: ")]
    assert len(lines) == 1


async def begin_upload(gateway: Gateway, *headers: str) -> bytes:
    """Send the beginning of a body; returns the whole answer, after which the connection ends."""
    reader, writer = await asyncio.open_connection(*gateway.address)
    lines = [
        "POST /v1/files HTTP/1.1",
        "host: x",
        f"authorization: Bearer {KEY}",
        "content-type: multipart/form-data; boundary=b",
        "content-length: 1000000",
        *headers,
    ]
    writer.write("\r\n".join([*lines, "", "--b"]).encode())
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    return answer


async def test_a_connection_whose_body_nobody_reads_is_closed(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the body would hold it for as long as its sender likes."""
    monkeypatch.setattr("gateway.serving.state_forwarder.REST_S", 0.1)
    answers = [await begin_upload(gateway, "content-encoding: gzip")]
    await gateway.stop_state()
    answers.append(await begin_upload(gateway))
    await gateway.router.drain(0)
    answers.append(await begin_upload(gateway))
    assert [answer.split()[1] for answer in answers] == [b"415", b"503", b"503"]
    assert all(b"connection: close\r\n" in answer for answer in answers)


async def test_a_small_body_is_read_before_an_error(gateway: Gateway) -> None:
    """Its connection can be used again, and no answer is lost."""
    await gateway.stop_state()
    async with gateway.http() as client:
        for _ in range(5):
            answer = await store(client)
            assert answer.status_code == 503
            assert "connection" not in answer.headers


async def test_state_that_has_moved_is_found_at_once(gateway: Gateway) -> None:
    """No request fails: what has not reached it is sent to where it is now."""
    async with gateway.http() as client:
        assert (await client.get("/v1/files")).status_code == 200
        await gateway.stop_state()
        await gateway.start_state()
        assert (await store(client)).status_code == 200
    assert gateway.whereabouts.asked == 2


async def test_small_requests_are_answered_too(gateway: Gateway) -> None:
    """Those of the gateway itself, on behalf of a project."""
    async with gateway.http() as client:
        file_id = (await store(client)).json()["id"]
    answer = await gateway.client.request("search", "GET", f"/v1/files/{file_id}")
    assert answer.status == 200
    other = await gateway.client.request("tests", "GET", f"/v1/files/{file_id}")
    assert other.status == 404
    await gateway.stop_state()
    with pytest.raises(StateUnavailable):
        await gateway.client.request("search", "GET", f"/v1/files/{file_id}")


@asynccontextmanager
async def upload(gateway: Gateway, length: int) -> AsyncIterator[asyncio.StreamWriter]:
    """An upload of which only the beginning has come."""
    reader, writer = await asyncio.open_connection(*gateway.address)
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\n\r\n"
        '--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    writer.write(head.encode() + bytes(2 * MIB))
    await writer.drain()
    await gateway.wait_until_stored(1)
    writer.reader = reader  # type: ignore[attr-defined] # both ends in one
    yield writer
    writer.close()


async def test_a_client_that_leaves_leaves_nothing(gateway: Gateway) -> None:
    """What has come of its file is deleted."""
    async with upload(gateway, 100 * MIB) as writer:
        writer.transport.abort()
        await gateway.wait_until_stored(0)
    async with gateway.http() as client:  # and the next one is served
        assert (await store(client)).status_code == 200


async def test_a_slow_upload_is_ended(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody keeps a connection for a file that does not come."""
    monkeypatch.setattr(body, "GRACE_S", 0.2)
    async with upload(gateway, 100 * MIB) as writer:
        answer = await asyncio.wait_for(writer.reader.readline(), PATIENCE_S)  # type: ignore[attr-defined]
        assert b" 408 " in answer
        await gateway.wait_until_stored(0)


async def test_a_router_that_stops_ends_uploads(gateway: Gateway) -> None:
    """They get an error, and nothing is left of them."""
    async with upload(gateway, 100 * MIB) as writer:
        assert await gateway.router.drain(0) == 1
        answer = await asyncio.wait_for(writer.reader.readline(), PATIENCE_S)  # type: ignore[attr-defined]
        assert b" 503 " in answer
        await gateway.wait_until_stored(0)


async def test_an_error_comes_before_the_file_does(gateway: Gateway) -> None:
    """A file that is announced to be too large is not read."""
    reader, writer = await asyncio.open_connection(*gateway.address)
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {1 << 40}\r\n\r\n--b"
    )
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


async def test_a_compressed_body_is_refused(gateway: Gateway) -> None:
    """Nobody would decode it."""
    async with gateway.http() as client:
        answer = await client.post("/v1/files", content=b"x", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415


async def test_a_stream_ends_with_its_client(gateway: Gateway) -> None:
    """State need not go on with what nobody reads."""
    has_left = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await StateApp()(scope, receive, send)
            return
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        waiting = asyncio.ensure_future(receive())
        while not waiting.done():
            part: Message = {"type": "http.response.body", "body": b"x" * 99, "more_body": True}
            await send(part)
            await asyncio.sleep(POLL_S)
        has_left.set()

    await gateway.stop_state()
    await gateway.start_state(endless)
    async with gateway.http() as client, client.stream("GET", "/v1/responses/r") as answer:
        assert answer.status_code == 200
        await anext(answer.aiter_bytes())
    await asyncio.wait_for(has_left.wait(), PATIENCE_S)


@pytest.mark.parametrize("is_compressed", [False, True])
async def test_a_response_in_the_background_is_followed(
    gateway: Gateway, *, is_compressed: bool
) -> None:
    """Its events come to their end: State gets a request for them that has no body."""
    body = json.dumps({"model": "x", "input": "Hi", "background": True, "stream": True}).encode()
    headers = {"content-type": "application/json"}
    if is_compressed:
        body, headers["content-encoding"] = gzip.compress(body), "gzip"
    async with gateway.http() as client, asyncio.timeout(PATIENCE_S):
        answer = await client.post("/v1/responses", content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.text.count("event: ") == 1
    assert "event: response.failed\n" in answer.text
    await gateway.router.drain(0)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nobody_waits_for_an_answer_whose_client_has_left(
    gateway: Gateway, method: str
) -> None:
    """Neither before its head, nor after a body."""
    has_come, has_left = asyncio.Event(), asyncio.Event()

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await StateApp()(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        has_come.set()
        await receive()
        has_left.set()

    await gateway.stop_state()
    await gateway.start_state(silent)
    async with gateway.http() as client:
        content = b"{}" if method == "POST" else None
        asking = asyncio.create_task(client.request(method, "/v1/batches", content=content))
        await asyncio.wait_for(has_come.wait(), PATIENCE_S)
        asking.cancel()
        await asyncio.wait_for(has_left.wait(), PATIENCE_S)


def test_connections_to_state_notice_that_its_machine_has_died() -> None:
    """Both what is silent and what is not taken; a request may wait for its answer for long."""
    address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))
    with http_state_client._socket(address) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000


async def test_state_says_that_it_has_not_opened_its_database(gateway: Gateway) -> None:
    """It listens from the beginning, so that requests need not wait for it."""
    await gateway.stop_state()
    await gateway.start_state(StateApp())
    async with gateway.http() as client:
        answer = await client.get("/v1/files")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
