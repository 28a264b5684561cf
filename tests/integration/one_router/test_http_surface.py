"""What clients of HTTP see through HAProxy: versions, encodings, browsers, probes, large bodies."""

import gzip
import http.client
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.gateway_process import GatewayProcess, model_application

pytestmark = pytest.mark.integration

CHAT = "/v1/chat/completions"
PAGE = "https://chat.example"
PATIENCE_S = 30
MIB = 1 << 20
UPLOADS = 6
UPLOADED_MIB = 31
ARRIVING_MB = 170
"""What a router may grow by under these uploads, which are 195 MB together."""
UPGRADE = (
    b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
QUICK = model_application(name="quick", engine="sim", simulation={"instant": True})


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway with one model, which a web page may use."""
    with shared.models(QUICK, max_body_mb=32, cors={"origins": [PAGE]}) as running:
        yield running


def body_of(**more: object) -> bytes:
    """A chat completion's body."""
    messages = [{"role": "user", "content": "Hello"}]
    return json.dumps({"model": "quick", "messages": messages, "max_tokens": 3, **more}).encode()


def ask(
    gateway: GatewayProcess, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """A response and its body; underscores in the names of headers stand for dashes."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body or None, named)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def talk(gateway: GatewayProcess, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of all that comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_S) as connection:
        connection.sendall(request)
        received = b""
        while part := connection.recv(1 << 16):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("connection", [b"", b"connection: keep-alive\r\n"])
def test_http_1_0_gets_a_stream_without_chunks(gateway: GatewayProcess, connection: bytes) -> None:
    """The events come as they are, and the connection's end is the stream's."""
    body = body_of(stream=True)
    head = b"POST %b HTTP/1.0\r\n%bcontent-length: %d\r\n\r\n" % (
        *(CHAT.encode(), connection, len(body)),
    )

    head, events = talk(gateway, head + body)

    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head.lower()
    assert events.startswith(b"data: {")
    assert events.endswith(b"data: [DONE]\n\n")


def test_http_1_0_gets_an_answer_with_its_length(gateway: GatewayProcess) -> None:
    """Whatever is no stream is as ever."""
    body = body_of()
    head = b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body))

    head, answer = talk(gateway, head + body)

    assert b"content-length: %d" % len(answer) in head.lower()
    assert json.loads(answer)["usage"]["completion_tokens"] == 3


def test_streams_are_not_held_back(gateway: GatewayProcess) -> None:
    """A proxy in front must not buffer events; other answers say nothing of it."""
    stream, _ = ask(gateway, "POST", CHAT, body_of(stream=True))
    whole, _ = ask(gateway, "POST", CHAT, body_of())

    assert stream.headers["cache-control"] == "no-cache"
    assert stream.headers["x-accel-buffering"] == "no"
    assert whole.headers["x-accel-buffering"] is None


@pytest.mark.parametrize(
    ("request_line", "more", "status"),
    [
        (b"OPTIONS *", b"", 400),
        (b"CONNECT x:80", b"", 400),
        (b"BREW /v1/models", b"", 400),
        (b"TRACE /v1/models", b"", 405),
        (b"GET /v1/responses", UPGRADE, 426),
        (b"GET /v1/realtime", UPGRADE, 404),
    ],
)
def test_odd_requests_get_json(
    gateway: GatewayProcess, request_line: bytes, more: bytes, status: int
) -> None:
    """All that HAProxy's parser lets pass is answered in the shape of other errors."""
    connection = b"connection: upgrade, close\r\n" if more else b"connection: close\r\n"
    head, body = talk(
        gateway, request_line + b" HTTP/1.1\r\nhost: x\r\n" + more + connection + b"\r\n"
    )

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/json" in head.lower()
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def raw_deflate(data: bytes) -> bytes:
    """Deflate without a header."""
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("Deflate", raw_deflate)],
)
def test_compressed_bodies_are_answered(
    gateway: GatewayProcess, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    """The engine sees the text; a damaged body is the client's mistake."""
    whole = encode(body_of())
    response, answer = ask(gateway, "POST", CHAT, whole, content_encoding=encoding)
    cut, error = ask(gateway, "POST", CHAT, whole[:-5], content_encoding=encoding)

    assert (response.status, json.loads(answer)["usage"]["completion_tokens"]) == (200, 3)
    assert (cut.status, json.loads(error)["error"]["code"]) == (400, "invalid_content_encoding")


def test_bombs_and_unknown_encodings_are_refused(gateway: GatewayProcess) -> None:
    """Neither is decoded; who asks for the impossible learns what is possible."""
    bomb = gzip.compress(body_of(user=" " * (64 * MIB)))
    bombed, _ = ask(gateway, "POST", CHAT, bomb, content_encoding="gzip")
    unknown, error = ask(gateway, "POST", CHAT, body_of(), content_encoding="br")

    assert bombed.status == 413
    assert (unknown.status, json.loads(error)["error"]["code"]) == (
        *(415, "unsupported_content_encoding"),
    )
    assert "gzip" in unknown.headers["accept-encoding"]


def test_a_web_page_may_use_the_gateway(gateway: GatewayProcess) -> None:
    """Preflight requests, answers, streams and errors are for the page that is listed."""
    preflight, _ = ask(
        *(gateway, "OPTIONS", CHAT),
        origin=PAGE,
        access_control_request_method="POST",
        access_control_request_headers="authorization,content-type",
    )
    responses = [
        ask(gateway, "POST", CHAT, body_of(), origin=PAGE)[0],
        ask(gateway, "POST", CHAT, body_of(stream=True), origin=PAGE)[0],
        ask(gateway, "POST", CHAT, b"{", origin=PAGE)[0],
        ask(gateway, "GET", "/v1/models", origin=PAGE)[0],
        ask(gateway, "GET", "/nowhere", origin=PAGE)[0],
    ]
    other, _ = ask(gateway, "GET", "/v1/models", origin="https://evil.example")

    assert preflight.status == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
    for response in (preflight, *responses):
        assert response.headers.get_all("access-control-allow-origin") == [PAGE]
        assert "origin" in response.headers["vary"]
    assert other.headers["access-control-allow-origin"] is None


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/health"), ("HEAD", "/health"), ("GET", "/ping"), ("POST", "/ping")],
)
def test_probes_for_vllm_are_answered(gateway: GatewayProcess, method: str, path: str) -> None:
    """With nothing, as vLLM does."""
    response, body = ask(gateway, method, path)
    assert (response.status, body) == (200, b"")


def test_slow_uploads_hold_little_memory(gateway: GatewayProcess) -> None:
    """Of large bodies that do not end, the oldest give way; a small one is answered meanwhile."""
    (router,) = gateway.replica_processes("gateway", "Router")
    before = router.memory_info().rss
    size = UPLOADED_MIB * MIB
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), size)
    growth_mb = []
    with ExitStack() as stack:
        address = ("127.0.0.1", gateway.port)
        uploads = [
            stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S))
            for _ in range(UPLOADS)
        ]
        for upload in uploads:
            upload.sendall(head + b" " * (size - 1))
            growth_mb.append((router.memory_info().rss - before) / 1e6)
            small, _ = ask(gateway, "POST", CHAT, body_of())
            assert small.status == 200
        refusal = uploads[0].recv(1 << 16)
        for upload in uploads[-2:]:
            upload.sendall(b" ")
        ended = [upload.recv(1 << 16) for upload in uploads[-2:]]

    assert refusal.startswith(b"HTTP/1.1 429 ")
    assert b"body_budget_exceeded" in refusal
    assert [said[:12] for said in ended] == [b"HTTP/1.1 400"] * 2  # blanks are no JSON
    assert max(growth_mb) < ARRIVING_MB
