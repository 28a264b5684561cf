"""The server inside a router's replica: what it writes at once, and what takes the shortcut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from inspect import signature
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
import uvicorn
from ray.serve._private.http_util import RequestIdMiddleware
from ray.serve._private.replica import Replica, ReplicaMetricsManager
from starlette.middleware.gzip import GZipMiddleware
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from deployments.server import BY_DEFAULT, Gathering, serve_directly
from deployments.shortcut import UNDER_WAY, Shortcut, shortened
from gateway.asgi import App, Message, Receive, Scope, Send
from gateway.http.app import GatewayApp
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, chunked
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
    """A transport that keeps what is written, write by write."""

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
    """What Serve's replica counts."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.requests: list[dict[str, object]] = []
        self.replies: list[dict[str, object]] = []

    def record_request_metrics(self, **estimates: object) -> None:
        """Count a request."""
        self.requests.append(estimates)

    def record_ingress_request_metrics(self, **estimates: object) -> None:
        """Count a reply."""
        self.replies.append(estimates)


class OneReplica(Replica):  # type: ignore[misc] # Ray tells no types
    """As much of Serve's replica as the server sees; all that Serve's own way gets is noted."""

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
    return Surface(upstream).gateway


async def test_a_head_leaves_with_what_follows_it() -> None:
    """Both in one write; what comes after is written as it comes."""
    wire = Wire()
    gathering = Gathering(cast("asyncio.Transport", wire), asyncio.get_running_loop())

    gathering.write(HEAD)
    assert wire.writes == []
    gathering.write(b"first")
    gathering.write(b"second")
    await asyncio.sleep(0)

    assert wire.writes == [HEAD + b"first", b"second"]


async def test_a_head_alone_is_not_kept() -> None:
    """It leaves when its turn of the loop ends, or with the connection."""
    wire = Wire()
    gathering = Gathering(cast("asyncio.Transport", wire), asyncio.get_running_loop())

    gathering.write(HEAD)
    await asyncio.sleep(0)
    assert wire.writes == [HEAD]
    gathering.write(HEAD)
    gathering.close()

    assert wire.writes == [HEAD, HEAD]
    assert wire.is_closed
    await asyncio.sleep(0)
    assert wire.writes == [HEAD, HEAD]


async def test_who_waits_for_a_word_gets_it() -> None:
    """An interim answer is no head."""
    wire = Wire()
    gathering = Gathering(cast("asyncio.Transport", wire), asyncio.get_running_loop())

    gathering.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    assert wire.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def test_nothing_is_written_to_a_closed_connection() -> None:
    """Its transport would raise."""
    wire = Wire()
    gathering = Gathering(cast("asyncio.Transport", wire), asyncio.get_running_loop())

    gathering.write(HEAD)
    wire.close()
    await asyncio.sleep(0)

    assert wire.writes == []


async def test_inference_takes_the_shortcut(gateway: GatewayApp) -> None:
    """The gateway answers, with the request's id; Serve counts it all the same."""
    replica = OneReplica()
    async with client(shortened(behind(replica), gateway)) as http:
        answer = await http.post(CHAT, json={"model": "none"}, headers={"x-request-id": "abc"})

    assert answer.status_code == 404
    assert answer.headers.get_list("x-request-id") == ["abc"]
    counts = replica.counts
    assert replica.taken == []
    assert (counts.most, counts.under_way) == (1, 0)
    (request,), (reply,) = counts.requests, counts.replies
    assert (request["route"], request["is_error"]) == ("/", False)
    assert (reply["status_code"], reply["is_error"], reply["method"]) == ("404", True, "POST")


async def test_all_else_takes_serves_way(gateway: GatewayApp) -> None:
    """Its health checks first of all."""
    replica = OneReplica()
    async with client(shortened(behind(replica), gateway)) as http:
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
async def test_there_is_no_way_around_what_operators_asked_for(
    gateway: GatewayApp, app: App
) -> None:
    """Serve's limits, another thread for our code, Serve's own log, another middleware."""
    assert shortened(app, gateway) is app


def test_serve_takes_what_it_is_told() -> None:
    """The names and parameters are those of this version."""
    signature(Replica._start_request).bind(None, UNDER_WAY)
    known = signature(ReplicaMetricsManager.record_request_metrics)
    known.bind(None, route="/", latency_ms=1.0, is_error=False, exception_type=None)
    known = signature(ReplicaMetricsManager.record_ingress_request_metrics)
    known.bind(
        None,
        protocol=UNDER_WAY.protocol,
        method="POST",
        route="/",
        app_name="gateway",
        deployment_name="Router",
        latency_ms=1.0,
        is_error=False,
        status_code="200",
    )


async def test_a_client_that_leaves_is_no_error(gateway: GatewayApp) -> None:
    """Serve counts the request, and no reply."""
    replica = OneReplica()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise AssertionError("nobody is there")

    await shortened(behind(replica), gateway)(SCOPE, receive, send)

    (request,) = replica.counts.requests
    assert not request["is_error"]
    assert replica.counts.replies == []


async def test_a_reply_that_breaks_off_is_an_error(
    gateway: GatewayApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Serve counts it, the log has it, and the server gets it, which cuts the connection."""
    replica = OneReplica()
    app = shortened(behind(replica), gateway)
    assert isinstance(app, Shortcut)

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


async def test_a_server_started_by_serve_has_it(
    upstream: UpstreamClient, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn takes the protocol, told of none, and answers over a socket: streams and the rest."""
    monkeypatch.setitem(HTTP_PROTOCOLS, BY_DEFAULT, HTTP_PROTOCOLS[BY_DEFAULT])
    surface = Surface(upstream)
    surface.add("m", await start_engine(script(STREAM)))
    serve_directly(surface.gateway)
    replica = OneReplica()
    app = RequestIdMiddleware(replica._direct_ingress_asgi)
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None)
    async with running(uvicorn.Server(config)) as url, httpx.AsyncClient(base_url=url) as http:
        stream = await http.post(CHAT, json={"model": "m", "stream": True})
        refusal = await http.post(CHAT, json={"model": "none"})
        head = await http.head(CHAT)
        closed = await http.post(
            CHAT, json={"model": "m", "stream": True}, headers={"connection": "close"}
        )
        other = await http.get("/v1/models")

    assert (stream.status_code, stream.content) == (200, b"data: {}\n\ndata: [DONE]\n\n")
    assert (closed.status_code, closed.content) == (200, stream.content)
    assert (refusal.status_code, head.status_code, other.status_code) == (404, 405, 204)
    assert replica.taken == ["/v1/models"]


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
