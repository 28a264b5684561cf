"""The HTTP server of a router's replica: its writes, and requests that bypass Serve."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
import uvicorn
from ray.serve._private.http_util import RequestIdMiddleware
from ray.serve._private.replica import Replica
from starlette.middleware.gzip import GZipMiddleware
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from deployments.serve_internals.direct_ingress import DirectIngress, with_direct_ingress
from deployments.serve_internals.head_coalescing import HeadCoalescingTransport
from deployments.serve_internals.router_protocol import DEFAULT_PROTOCOL, install_router_protocol
from gateway.asgi import App, Message, Receive, Scope, Send
from gateway.http.app import GatewayApp
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import PATIENCE_S, StartEngine, chunked
from tests.unit.surface import Surface, script

CHAT = "/v1/chat/completions"
SCOPE: Scope = {"type": "http", "path": CHAT, "method": "POST", "headers": []}
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    + chunked(b"data: {}\n\n", b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Wire:
    """Transport that records every write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        """Take one write."""
        self.writes.append(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        """Take several as one."""
        self.writes.append(b"".join(parts))

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self.is_closed

    def close(self) -> None:
        """Close it."""
        self.is_closed = True


class Counts:
    """Counts of Serve's replica."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.requests: list[dict[str, object]] = []
        self.replies: list[dict[str, object]] = []

    def record_request_metrics(self, **values: object) -> None:
        """Count a request."""
        self.requests.append(values)

    def record_ingress_request_metrics(self, **values: object) -> None:
        """Count a reply."""
        self.replies.append(values)


class OneReplica(Replica):  # type: ignore[misc] # Ray tells no types
    """The parts of Serve's replica that the server uses; records requests that Serve handles."""

    def __init__(
        self,
        *,
        timeout_s: float | None = None,
        has_thread: bool = False,
        has_access_log: bool = False,
        max_queued_requests: int = -1,
    ) -> None:
        self.counts = Counts()
        self.taken: list[str] = []
        self._metrics_manager = cast("object", self.counts)
        self._deployment_id = SimpleNamespace(app_name="gateway", name="Router")
        self._route_prefix = "/"
        self._http_options = SimpleNamespace(request_timeout_s=timeout_s)
        self._user_callable_wrapper = SimpleNamespace(_run_user_code_in_separate_thread=has_thread)
        self._deployment_config = SimpleNamespace(
            logging_config={"enable_access_log": has_access_log},
            max_queued_requests=max_queued_requests,
        )

    @asynccontextmanager
    async def _start_request(self, _: object) -> AsyncIterator[None]:
        self.counts.under_way += 1
        self.counts.most = max(self.counts.most, self.counts.under_way)
        try:
            yield
        finally:
            self.counts.under_way -= 1

    async def _direct_ingress_asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.taken.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def behind(replica: OneReplica) -> App:
    """The application that Serve gives its server."""
    return cast("App", ProxyHeadersMiddleware(RequestIdMiddleware(replica._direct_ingress_asgi)))


def client(app: App) -> httpx.AsyncClient:
    """A client of an application."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


@pytest.fixture
def gateway(upstream: UpstreamClient) -> GatewayApp:
    """A gateway without models."""
    return Surface(upstream).router.app


async def test_a_response_head_is_sent_with_the_first_body_bytes() -> None:
    """In one write; later bytes are written as they come."""
    wire = Wire()
    transport = HeadCoalescingTransport(cast("asyncio.Transport", wire), asyncio.get_running_loop())

    transport.write(HEAD)
    assert wire.writes == []
    transport.write(b"first")
    transport.write(b"second")
    await asyncio.sleep(0)

    assert wire.writes == [HEAD + b"first", b"second"]


async def test_a_head_without_a_body_is_sent_in_the_same_turn_of_the_loop() -> None:
    """At the end of the turn, or when the connection closes."""
    wire = Wire()
    transport = HeadCoalescingTransport(cast("asyncio.Transport", wire), asyncio.get_running_loop())

    transport.write(HEAD)
    await asyncio.sleep(0)
    assert wire.writes == [HEAD]
    transport.write(HEAD)
    transport.close()

    assert wire.writes == [HEAD, HEAD]
    assert wire.is_closed
    await asyncio.sleep(0)
    assert wire.writes == [HEAD, HEAD]


async def test_an_interim_response_is_sent_at_once() -> None:
    """Clients wait for it."""
    wire = Wire()
    transport = HeadCoalescingTransport(cast("asyncio.Transport", wire), asyncio.get_running_loop())

    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    assert wire.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def test_nothing_is_written_to_a_closed_connection() -> None:
    """Its transport would raise."""
    wire = Wire()
    transport = HeadCoalescingTransport(cast("asyncio.Transport", wire), asyncio.get_running_loop())

    transport.write(HEAD)
    wire.close()
    await asyncio.sleep(0)

    assert wire.writes == []


async def test_inference_requests_bypass_serve(gateway: GatewayApp) -> None:
    """The gateway answers with the request's id, and Serve still counts the request."""
    replica = OneReplica()
    async with client(with_direct_ingress(behind(replica), gateway)) as http:
        answer = await http.post(CHAT, json={"model": "none"}, headers={"x-request-id": "abc"})

    assert answer.status_code == 404
    assert answer.headers.get_list("x-request-id") == ["abc"]
    counts = replica.counts
    assert replica.taken == []
    assert (counts.most, counts.under_way) == (1, 0)
    (request,), (reply,) = counts.requests, counts.replies
    assert (request["route"], request["is_error"]) == ("/", False)
    assert (reply["status_code"], reply["is_error"], reply["method"]) == ("404", True, "POST")


async def test_other_requests_pass_through_serve(gateway: GatewayApp) -> None:
    """Above all its health checks."""
    replica = OneReplica()
    async with client(with_direct_ingress(behind(replica), gateway)) as http:
        for path in ("/-/healthz", "/v1/models"):
            assert (await http.get(path)).status_code == 204

    assert replica.taken == ["/-/healthz", "/v1/models"]
    assert replica.counts.most == 0


@pytest.mark.parametrize(
    "app",
    [
        behind(OneReplica(timeout_s=5.0)),
        behind(OneReplica(has_thread=True)),
        behind(OneReplica(has_access_log=True)),
        behind(OneReplica(max_queued_requests=9)),
        cast("App", GZipMiddleware(behind(OneReplica()))),
    ],
    ids=["timeout", "thread", "access log", "queue", "middleware"],
)
async def test_nothing_bypasses_what_operators_configured(gateway: GatewayApp, app: App) -> None:
    """Serve's limits, a thread for user code, Serve's access log, other middleware."""
    assert with_direct_ingress(app, gateway) is app


def lacking(name: str) -> OneReplica:
    """Serve's replica in a version that lacks an attribute."""
    replica = OneReplica()
    delattr(replica, name)
    return replica


class OtherCounts(Counts):
    """Serve's metrics in a version that has other parameters."""

    def record_request_metrics(self, *, duration_s: float) -> None:  # type: ignore[override]
        """Count a request."""


def recording_otherwise() -> OneReplica:
    """Serve's replica with other metrics."""
    replica = OneReplica()
    replica._metrics_manager = OtherCounts()
    return replica


class UncountedReplica(OneReplica):
    """Serve's replica in a version that counts requests without a context manager."""

    def _start_request(self, _: object) -> object:  # type: ignore[override]
        return object()


@pytest.mark.parametrize(
    "replica",
    [
        *map(lacking, ("_metrics_manager", "_deployment_id", "_route_prefix", "_http_options")),
        *map(lacking, ("_user_callable_wrapper", "_deployment_config")),
        recording_otherwise(),
        UncountedReplica(),
    ],
    ids=["metrics", "id", "route", "options", "wrapper", "config", "parameters", "counting"],
)
async def test_requests_pass_through_serve_if_an_internal_name_is_gone(
    gateway: GatewayApp, replica: OneReplica, caplog: pytest.LogCaptureFixture
) -> None:
    """No connection fails: Serve answers, and the log has the reason."""
    app = with_direct_ingress(behind(replica), gateway)
    async with client(app) as http:
        assert (await http.post(CHAT, json={})).status_code == 204

    assert replica.taken == [CHAT]
    assert "no direct ingress" in caplog.text


async def test_requests_pass_through_serve_if_an_internal_module_is_gone(
    gateway: GatewayApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a warning, too."""
    monkeypatch.setitem(sys.modules, "ray.serve._private.tracing_utils", None)
    app = behind(OneReplica())

    assert with_direct_ingress(app, gateway) is app
    assert "no direct ingress" in caplog.text


async def test_a_client_that_leaves_does_not_count_as_an_error(gateway: GatewayApp) -> None:
    """Serve counts the request, and no reply."""
    replica = OneReplica()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise AssertionError("nobody is there")

    await with_direct_ingress(behind(replica), gateway)(SCOPE, receive, send)

    (request,) = replica.counts.requests
    assert not request["is_error"]
    assert replica.counts.replies == []


async def test_a_broken_response_counts_as_an_error(
    gateway: GatewayApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Serve counts it, it is logged, and the server closes the connection."""
    replica = OneReplica()
    app = with_direct_ingress(behind(replica), gateway)
    assert isinstance(app, DirectIngress)

    async def receive() -> Message:
        raise OSError("gone")

    async def send(_: Message) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await app(SCOPE, receive, send)

    (request,) = replica.counts.requests
    assert (request["is_error"], request["exception_type"]) == (True, "OSError")
    assert "/v1/chat/completions failed" in caplog.text
    assert replica.counts.replies == []
    assert replica.counts.under_way == 0


async def test_a_server_started_by_serve_uses_the_router_protocol(
    upstream: UpstreamClient, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn uses the protocol by default, and answers over a socket, streaming or not."""
    monkeypatch.setitem(HTTP_PROTOCOLS, DEFAULT_PROTOCOL, HTTP_PROTOCOLS[DEFAULT_PROTOCOL])
    surface = Surface(upstream)
    surface.add("m", await start_engine(script(STREAM)))
    install_router_protocol(surface.router.app)
    replica = OneReplica()
    app = RequestIdMiddleware(replica._direct_ingress_asgi)
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None)
    async with running(uvicorn.Server(config)) as url, httpx.AsyncClient(base_url=url) as http:
        stream = await http.post(CHAT, json={"model": "m", "stream": True})
        refusal = await http.post(CHAT, json={"model": "none"})
        head = await http.head("/v1/embeddings")
        stored = await http.get("/v1/files/file-x/content")
        closed = await http.post(
            CHAT, json={"model": "m", "stream": True}, headers={"connection": "close"}
        )
        other = await http.get("/v1/models")

    assert (stream.status_code, stream.content) == (200, b"data: {}\n\ndata: [DONE]\n\n")
    assert (closed.status_code, closed.content) == (200, stream.content)
    assert (refusal.status_code, head.status_code, other.status_code) == (404, 405, 204)
    assert stored.json()["error"]["code"] == "state_not_configured"
    assert replica.taken == ["/v1/models"]


async def test_http_1_0_gets_no_chunks(
    upstream: UpstreamClient, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream to HTTP/1.0 ends with its connection; answers of known length are as ever."""
    monkeypatch.setitem(HTTP_PROTOCOLS, DEFAULT_PROTOCOL, HTTP_PROTOCOLS[DEFAULT_PROTOCOL])
    surface = Surface(upstream)
    surface.add("m", await start_engine(script(STREAM)))
    install_router_protocol(surface.router.app)
    app = RequestIdMiddleware(OneReplica()._direct_ingress_asgi)
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None)
    async with running(uvicorn.Server(config)) as url:
        stream = await talk(url, post(b'{"model":"m","stream":true}'))
        kept = await talk(url, post(b'{"model":"m","stream":true}', b"connection: keep-alive\r\n"))
        refusal = await talk(url, post(b'{"model":"none"}'))

    for said in (stream, kept):
        head, _, body = said.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert body == b"data: {}\n\ndata: [DONE]\n\n"
    assert b"content-length" in refusal
    assert refusal.endswith(b"}}")


async def test_upgrades_and_what_is_no_http_get_json(
    upstream: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request opens a WebSocket, and the connection of one that tried is not used again."""
    monkeypatch.setitem(HTTP_PROTOCOLS, DEFAULT_PROTOCOL, HTTP_PROTOCOLS[DEFAULT_PROTOCOL])
    install_router_protocol(Surface(upstream).router.app)
    app = RequestIdMiddleware(OneReplica()._direct_ingress_asgi)
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None)
    upgrade = (
        b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with running(uvicorn.Server(config)) as url:
        refused = await talk(url, upgrade)
        invalid = await talk(url, b"PLAY /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")

    assert refused.startswith(b"HTTP/1.1 426 ")
    assert b'"code":"upgrade_refused"' in refused
    assert invalid.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"invalid_value"' in invalid


def post(body: bytes, more: bytes = b"") -> bytes:
    """A request of HTTP/1.0."""
    head = b"POST %b HTTP/1.0\r\n%bcontent-length: %d\r\n\r\n" % (CHAT.encode(), more, len(body))
    return head + body


async def talk(url: str, request: bytes) -> bytes:
    """All that comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(request)
    async with asyncio.timeout(PATIENCE_S):
        said = await reader.read()
    writer.close()
    return said


@asynccontextmanager
async def running(server: uvicorn.Server) -> AsyncIterator[str]:
    """A server's address, while it runs."""
    serving: Awaitable[None] = asyncio.ensure_future(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving
