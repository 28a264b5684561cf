"""Clients that are slow, broken or malicious, while others want to be served."""

import asyncio
import http.client
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.gateway_process import GatewayProcess, model_application

pytestmark = pytest.mark.integration

CHAT = "/v1/chat/completions"
PATIENCE_S = 45
"""The 30 seconds within which a half request is rejected, and more for a busy machine."""
SILENCE_S = 28
"""Longer than any limit for a request to arrive."""
HALF_OPEN = 200
SLOW_READERS = 4
STREAM_TOKENS = 100_000
"""Of a stream of 20 MB and more."""
RELAYED_MB = 40
"""What a router may grow by under slow readers, whose streams are more than twice that."""
LEAK = re.compile(rb"Traceback|site-packages|\.py\b|deployments|Exception|object at 0x")
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
QUICK = model_application(
    name="quick",
    engine="sim",
    simulation={"instant": True, "max_model_len": 200_000, "kv_tokens": 1_000_000},
)
PATIENT = model_application(name="patient", engine="sim", simulation={"step_s": SILENCE_S})


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway with a model that answers at once and one that thinks for long."""
    with shared.models(QUICK, PATIENT, max_body_mb=1) as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(gateway: GatewayProcess) -> Iterator[None]:
    """Whatever a test does, the same processes answer an ordinary request after it."""
    before = [process.pid for process in gateway.replica_processes("gateway", "Router")]
    yield
    status, _ = gateway.chat("quick", max_tokens=2)
    after = [process.pid for process in gateway.replica_processes("gateway", "Router")]

    assert status == 200
    assert before == after != []


def post(body: bytes, *headers: bytes, path: str = CHAT) -> bytes:
    """A request as its bytes."""
    lines = [
        b"POST %b HTTP/1.1" % path.encode(),
        b"host: x",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(path: bytes, *headers: bytes) -> bytes:
    """A request as its bytes."""
    return b"\r\n".join([b"GET %b HTTP/1.1" % path, b"host: x", *headers]) + b"\r\n\r\n"


def chat(model: str, **more: object) -> bytes:
    """A chat completion as its bytes."""
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": model, "messages": messages, **more}
    return post(json.dumps(body).encode(), b"connection: close")


def said_to(gateway: GatewayProcess, sent: bytes) -> tuple[int, bytes]:
    """Status and body of the first answer to raw bytes; 0 if the connection was just closed."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
            return response.status, response.read()
        except (http.client.HTTPException, ConnectionError):
            return 0, b""
        finally:
            response.close()


HALVES = {
    "nothing": (b"", b""),
    "half a request line": (b"POST /v1/ch", b""),
    "half a head": (HEAD, b""),
    "a head that drips": (HEAD + b"a: ", b"a"),
    "half a body": (HEAD + b"content-length: 100\r\n\r\n{", b""),
    "half a larger body": (HEAD + b"content-length: 100000\r\n\r\n" + b" " * 17_000, b""),
    "a larger body that drips": (HEAD + b"content-length: 100000\r\n\r\n" + b" " * 17_000, b" "),
    "a gigabyte announced": (HEAD + b"content-length: 1000000000\r\n\r\n{", b""),
    "chunks that drip": (CHUNKED, b"1\r\n \r\n"),
    "chunks without end": (CHUNKED, b"20000\r\n" + b" " * 0x20000 + b"\r\n"),
}
"""What is sent at first, and then every second."""


async def rejection(port: int, first: bytes, every: bytes) -> bytes:
    """The status line by which a half request is given up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)

    async def drip() -> None:
        while every:
            await asyncio.sleep(1)
            writer.write(every)
            await writer.drain()

    dripping = asyncio.create_task(drip())
    try:
        return await reader.readline()
    finally:
        dripping.cancel()
        await asyncio.wait([dripping])
        writer.transport.abort()


async def late_answer(port: int) -> int:
    """The status of an answer for which the client waits in silence."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
        response = await client.post(
            CHAT,
            json={
                "model": "patient",
                "messages": [{"role": "user", "content": "x"}],
                "max_tokens": 1,
            },
        )
        return response.status_code


async def others(port: int, until: asyncio.Future[list[bytes]]) -> set[int]:
    """The statuses that ordinary clients get meanwhile."""
    statuses = set()
    body = {"model": "quick", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        while not until.done():
            statuses.add((await client.post(CHAT, json=body)).status_code)
            await asyncio.sleep(0.5)
    return statuses


async def test_half_open_clients_are_rejected_while_others_are_served(
    gateway: GatewayProcess,
) -> None:
    """Two hundred of them at a time; who waits for an answer just as silently gets it."""
    each = HALF_OPEN // len(HALVES)
    async with asyncio.timeout(PATIENCE_S):
        late = asyncio.create_task(late_answer(gateway.port))
        halves = asyncio.gather(
            *(rejection(gateway.port, *half) for half in HALVES.values() for _ in range(each))
        )
        statuses = await others(gateway.port, halves)
        rejected = {
            name: {line[9:12] for line in halves.result()[i * each : (i + 1) * each]}
            for i, name in enumerate(HALVES)
        }
        late_status = await late

    assert {name: statuses - {b"408"} for name, statuses in rejected.items()} == {
        name: {b"413"} if name == "chunks without end" else set() for name in HALVES
    }
    assert statuses == {200}
    assert late_status == 200


def test_a_slow_reader_keeps_its_stream_and_costs_the_router_little(
    gateway: GatewayProcess,
) -> None:
    """What a client does not take is not taken from the engine, and waits there."""
    (router,) = gateway.replica_processes("gateway", "Router")
    before = router.memory_info().rss
    request = chat("quick", max_tokens=STREAM_TOKENS, stream=True)
    connections = [
        socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_S)
        for _ in range(SLOW_READERS)
    ]
    received = [b""] * SLOW_READERS
    for connection in connections:
        connection.sendall(request)

    for _ in range(10):
        for i, connection in enumerate(connections):
            received[i] += connection.recv(1024)
        status, _ = gateway.chat("quick", max_tokens=100)
        assert status == 200
    growth_mb = (router.memory_info().rss - before) / 1e6
    first = bytearray(received[0])
    while part := connections[0].recv(1 << 20):
        first += part
    for connection in connections:
        connection.close()

    assert len(first) * SLOW_READERS > 2 * RELAYED_MB * 1e6
    assert b"data: [DONE]" in first[-100:]
    assert growth_mb < RELAYED_MB


GARBAGE = {
    "no method": b"G@T / HTTP/1.1\r\n\r\n",
    "an unknown method": b"BREW /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\nhost: x\r\n\r\n",
    "another address": b"GET http://elsewhere/ HTTP/1.1\r\nhost: x\r\n\r\n",
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "TLS": bytes.fromhex("16030100f8010000f40303") + bytes(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),
    "NUL in a header": get(b"/v1/models", b"a: \0"),
    "a bare CR in a header": get(b"/v1/models", b"a: b\rc: d"),
    "a header without colon": get(b"/v1/models", b"abc"),
    "32 kB of headers": get(b"/v1/models", *[b"a%d: %b" % (i, b"x" * 1000) for i in range(32)]),
    "a long URL": get(b"/" + b"x" * 40_000),
    "a path of invalid UTF-8": get(b"/v1/models/%ff%fe%00"),
    "a path upwards": get(b"/%2e%2e/%2e%2e/etc/passwd"),
    "a broken percent code": get(b"/v1/models/%zz%"),
    "bytes in a path": get(b"/\xff"),
    "a length beyond counting": HEAD + b"content-length: " + b"9" * 30 + b"\r\n\r\n",
    "the largest length": HEAD + b"content-length: 9223372036854775807\r\n\r\n" + b" " * 20_000,
    "a negative length": HEAD + b"content-length: -1\r\n\r\n",
    "two lengths": HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\n{}  ",
    "a length and chunks": HEAD
    + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two encodings": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "no chunk": CHUNKED + b"zz\r\nabc",
    "too large a chunk": CHUNKED + b"f" * 18 + b"\r\nabc",
    "a websocket": get(
        b"/v1/chat/completions",
        b"connection: upgrade",
        b"upgrade: websocket",
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        b"sec-websocket-version: 13",
    ),
    "deep arrays": post(
        b'{"model": "quick", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    ),
    "deep objects": post(b'{"model": "quick", "tools": ' + b'{"a": ' * 100_000),
    "a huge number": post(
        b'{"model": "quick", "messages": [], "max_tokens": ' + b"9" * 100_000 + b"}"
    ),
    "a number beyond floats": post(b'{"model": "quick", "messages": [], "max_tokens": 1e400}'),
    "NaN": post(b'{"model": "quick", "messages": [], "max_tokens": NaN}'),
    "a lone surrogate as model": post(b'{"model": "\\ud800"}'),
    "a lone surrogate as content": post(
        b'{"model": "quick", "messages": [{"role": "user", "content": "\\ud800"}]}'
    ),
    "invalid UTF-8": post(b'{"model": "quick", "messages": [{"role": "user", "content": "\xff"}]}'),
    "invalid UTF-8 as model": post(b'{"model": "\xff"}'),
    "UTF-16": post('{"model": "quick"}'.encode("utf-16")),
    "no bytes": post(b""),
    "NUL bytes": post(bytes(10)),
    "gzip": post(b"\x1f\x8b\x08", b"content-encoding: gzip"),
    "wrong types": post(b'{"model": "quick", "messages": [null], "stream": "x", "n": -1}'),
    "a strange form": post(
        b"--\xff",
        b"content-type: multipart/form-data; boundary=\xff",
        path="/v1/audio/transcriptions",
    ),
}
"""What no well-meant client sends."""
ODD = {
    **{
        name: [name.encode() + b": \xff\xfe"]
        for name in (
            *("x-request-id", "x-session-id", "X_Session-Id", "traceparent", "tracestate"),
            *("x-request-timeout-seconds", "x-request-disconnect-disabled", "x-forwarded-for"),
            *("Serve_Multiplexed-Model_Id", "serve-multiplexed-model-id", "x-forwarded-proto"),
            *("authorization", "content-type", "user-agent", "accept"),
        )
    },
    "an order to Serve to cut the stream": [b"x-request-timeout-seconds: 0.000001"],
    "an order to Serve to overlook the client": [b"x-request-disconnect-disabled: ?1"],
    "90 headers": [b"a%d: 1" % i for i in range(90)],
    "a folded header": [b"a: b", b" c"],
    "a long header": [b"a: " + b"x" * 12_000],
    "an expectation": [b"expect: 200-magic"],
}
"""Headers that are odd, with a request that is not."""


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_without_a_word_about_ourselves(
    gateway: GatewayProcess, name: str
) -> None:
    """No 500, no internals; a closed connection is an answer, too."""
    status, body = said_to(gateway, GARBAGE[name])

    assert status == 0 or 400 <= status < 500, body
    assert not LEAK.search(body), body


@pytest.mark.parametrize("name", ODD)
def test_odd_headers_do_not_disturb_an_answer(gateway: GatewayProcess, name: str) -> None:
    """What the gateway does not read, and Serve should not, changes nothing."""
    body = {"model": "quick", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}

    status, answer = said_to(gateway, post(json.dumps(body).encode(), *ODD[name]))

    assert (status, json.loads(answer)["usage"]["completion_tokens"]) == (200, 2)


@pytest.mark.parametrize(
    "name",
    ["x-gateway-resume", "x-gateway-explain", "x-gateway-priority", "x-request-timeout-s"],
)
@pytest.mark.parametrize("value", [b"\xff", b"nan", b"inf", b"-1", b"9" * 5000, b"1e-400", b""])
def test_the_gateways_own_headers_hold_no_trap(
    gateway: GatewayProcess, name: str, value: bytes
) -> None:
    """A value that makes no sense is refused, or changes nothing."""
    body = {"model": "quick", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    header = name.encode() + b": " + value

    status, answer = said_to(gateway, post(json.dumps(body).encode(), header))

    assert status in {200, 400}, answer
    assert not LEAK.search(answer), answer


@pytest.mark.parametrize(
    ("path", "fields", "code", "param"),
    [
        (CHAT, {"n": 2000}, "limit_exceeded", "n"),
        (CHAT, {"n": "2000"}, "limit_exceeded", "n"),
        (CHAT, {"bad_words": ["w" * 100_000]}, "limit_exceeded", "bad_words"),
        (CHAT, {"metadata": {"a": "\ud800"}}, "invalid_json", None),
        ("/v1/completions", {"prompt": ["a"] * 5000}, "limit_exceeded", "prompt"),
        ("/tokenize", {"prompt": "w" * (1 << 20)}, "body_too_large", None),
    ],
)
def test_a_request_that_asks_for_too_much_is_refused(
    gateway: GatewayProcess, path: str, fields: dict[str, Any], code: str, param: str | None
) -> None:
    """The error names the field, and no engine sees the request."""
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "quick", "messages": messages, "max_tokens": 2, **fields}
    content, headers = json.dumps(body), {"content-type": "application/json"}
    error = httpx.post(gateway.url + path, content=content, headers=headers).json()["error"]
    assert (error["code"], error["param"]) == (code, param)


def test_a_byte_order_mark_and_a_stream_by_any_word_are_accepted(gateway: GatewayProcess) -> None:
    """As engines accept them."""
    body = (
        b'\xef\xbb\xbf{"model":"quick","messages":[{"role":"user","content":"a"}],"stream":"yes"}'
    )
    headers = {"content-type": "application/json"}
    answer = httpx.post(gateway.url + CHAT, content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.text.startswith("data: ")


def test_pipelined_requests_are_answered_in_order(gateway: GatewayProcess) -> None:
    """A client may send the next request before it has an answer."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_S) as connection:
        connection.sendall(get(b"/v1/models/one") + get(b"/v1/models/two", b"connection: close"))
        said = b"".join(iter(lambda: connection.recv(1 << 16), b""))

    assert re.findall(rb"The model `(\w+)` does not exist", said) == [b"one", b"two"]


def test_nothing_that_the_openapi_document_allows_fails(gateway: GatewayProcess) -> None:
    """Generated requests get the answers that the document promises, and never a 500."""
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    tried = set()
    for result in schema.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr] # an `Err` has none, and is a failure

        @settings(
            max_examples=20,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def hold(case: schemathesis.Case[Any]) -> None:
            if isinstance(case.body, dict) and len(str(case.body.get("model"))) % 2:
                case.body["model"] = "quick"  # a name at random is never one that exists
            response = case.call_and_validate(checks=checks, timeout=PATIENCE_S)
            assert not LEAK.search(response.content)
            tried.add(case.operation.label)

        hold()

    assert "POST /v1/chat/completions" in tried
    assert len(tried) > 15
