"""The HTTP client of locust users: requests that it sends, and outcomes of responses."""

import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest

from loadtests.loadgen.outcome import Outcome, Status
from loadtests.locust_users.http_client import ChatClient
from loadtests.workloads.turn import Function, Message, ToolCall, Turn

TURN = Turn(
    messages=(
        Message("user", "What is the weather like?"),
        Message("assistant", "", (ToolCall("call_1", Function("look", '{"at": "sky"}')),)),
        Message("tool", "blue", tool_call_id="call_1"),
    ),
    answer_tokens=7,
    is_batch=True,
)
FIRST = b'data: {"choices": [{"delta": {"content": "Fair"}}]}\n\n'
LAST = (
    b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, '
    b'"prompt_tokens_details": {"cached_tokens": 4}}}\n\ndata: [DONE]\n\n'
)


class Answering(http.server.ThreadingHTTPServer):
    """Answers all requests alike, and keeps them."""

    def __init__(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.content, self.headers = status, content, headers
        self.requests: list[tuple[str, dict[str, str], Any]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection; the client counts on its being kept."""

    server: Answering
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        lowered = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, lowered, body))
        self.send_response(self.server.status)
        headers = {"content-length": str(len(self.server.content))} | self.server.headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.content)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(
    status: int = 200, content: bytes = FIRST + LAST, headers: dict[str, str] | None = None
) -> Iterator[tuple[Answering, str]]:
    """Such a server, and where it is."""
    with Answering(status, content, headers or {}) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def unrecorded(_: Outcome) -> None:
    """Record nothing: the reply is looked at instead."""


def test_a_turn_is_sent_as_openai_defines_it() -> None:
    """As a stream with usage, with its tools' calls and results, its key and its priority."""
    with answering() as (server, host), ChatClient(f"{host}/base/", unrecorded, "secret") as client:
        client.send("model", TURN)

    ((path, headers, body),) = server.requests
    assert path == "/base/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret"
    assert headers["x-gateway-priority"] == "batch"
    assert body == {
        "model": "model",
        "messages": [
            {"role": "user", "content": "What is the weather like?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"at": "sky"}'},
                    }
                ],
            },
            {"role": "tool", "content": "blue", "tool_call_id": "call_1"},
        ],
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, to make a certificate")
def test_https_trusts_the_certificates_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's own included, and no others."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    about = [
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]
    files = ["-out", str(certificate), "-keyout", str(key)]
    subprocess.run([*make, *about, *files], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with answering() as (server, _):
        server.socket = context.wrap_socket(server.socket, server_side=True)
        host = f"https://localhost:{server.server_port}"
        with ChatClient(host, unrecorded) as client:
            stranger = client.send("model", TURN).outcome
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with ChatClient(host, unrecorded) as client:
            trusted = client.send("model", TURN).outcome

    assert stranger.status is Status.FAILED
    assert "CERTIFICATE_VERIFY_FAILED" in stranger.reason
    assert (trusted.status, trusted.reason) == (Status.ANSWERED, "")


def test_an_interactive_turn_is_sent_without_priority_and_key() -> None:
    """Where none was given."""
    with answering() as (server, host), ChatClient(host, unrecorded) as client:
        client.send("model", Turn(messages=TURN.messages, answer_tokens=7))

    ((_, headers, _),) = server.requests
    assert not {"authorization", "x-gateway-priority"} & {*headers}


def test_a_whole_answer_is_measured() -> None:
    """Its text, its usage, and times in their order."""
    with answering() as (_, host), ChatClient(host, unrecorded) as client:
        reply = client.send("model", TURN)

    outcome = reply.outcome
    assert reply.text == "Fair"
    assert (outcome.status, outcome.reason) == (Status.ANSWERED, "")
    assert (outcome.prompt_tokens, outcome.cached_tokens, outcome.completion_tokens) == (9, 4, 2)
    assert outcome.ttft_s is not None
    assert 0 < outcome.ttft_s <= outcome.e2e_s
    assert outcome.tokens_per_s == pytest.approx(2 / outcome.e2e_s)


def test_times_count_from_when_a_request_was_due() -> None:
    """A client that sends late makes nothing look faster; its lateness is recorded."""
    recorded: list[Outcome] = []
    with answering() as (_, host), ChatClient(host, recorded.append) as client:
        client.send("model", TURN, time.perf_counter() - 60)
        client.send("model", TURN)

    late, prompt = recorded
    assert late.late_s >= 60
    assert late.ttft_s is not None
    assert 60 <= late.late_s < late.ttft_s <= late.e2e_s
    assert prompt.late_s == 0
    assert prompt.due_s - late.due_s >= 60


def test_a_request_cut_by_the_end_of_the_test_is_recorded() -> None:
    """It is neither an answer nor a failure."""
    recorded: list[Outcome] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:  # never answers
        client = ChatClient(f"http://127.0.0.1:{silent.getsockname()[1]}", recorded.append)
        user = gevent.spawn(client.send, "model", TURN)
        gevent.sleep(0.05)
        user.kill()

    (outcome,) = recorded
    assert (outcome.status, outcome.reason) == (Status.CUT, "")
    assert outcome.e2e_s > 0


def test_lines_may_end_with_a_carriage_return() -> None:
    """As those of HTTP do."""
    content = (FIRST + LAST).replace(b"\n", b"\r\n")
    with answering(content=content) as (_, host), ChatClient(host, unrecorded) as client:
        reply = client.send("model", TURN)

    assert (reply.outcome.status, reply.text) == (Status.ANSWERED, "Fair")


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (500, b'{"error": {"message": "Oh.", "type": "server_error"}}', "500 server_error: Oh."),
        (404, b"nothing here", "404 nothing here"),
        (200, FIRST, "the stream ended without [DONE]"),
        (200, FIRST + b"data: [DONE]", "the stream ended without [DONE]"),
        (200, FIRST + b'data: {"error": {"message": "Lost."}}\n\n' + LAST, "error event: Lost."),
    ],
)
def test_an_answer_that_is_not_whole_has_failed(status: int, content: bytes, reason: str) -> None:
    """Whatever came before; the reason is given."""
    with answering(status, content) as (_, host), ChatClient(host, unrecorded) as client:
        outcome = client.send("model", TURN).outcome

    assert (outcome.status, outcome.reason) == (Status.FAILED, reason)


def test_a_stream_that_ends_early_has_failed() -> None:
    """The connection ends before the answer does."""
    longer = {"content-length": "100000"}
    with answering(200, FIRST, longer) as (_, host), ChatClient(host, unrecorded) as client:
        reply = client.send("model", TURN)

    assert reply.outcome.status is Status.FAILED
    assert reply.outcome.reason


def test_a_refused_connection_is_a_failure() -> None:
    """With its reason."""
    with answering() as (_, host):
        pass
    with ChatClient(host, unrecorded) as client:
        outcome = client.send("model", TURN).outcome

    assert outcome.status is Status.FAILED
    assert "ConnectionRefusedError" in outcome.reason


@pytest.mark.parametrize(
    ("headers", "wait_s"), [({"retry-after": "3"}, 3.0), ({}, 1.0), ({"retry-after": "0"}, 0.1)]
)
def test_a_rejection_says_when_to_retry(headers: dict[str, str], wait_s: float) -> None:
    """Without a `Retry-After` it is a second, and never no time at all."""
    content = b'{"error": {"message": "Later.", "code": "overloaded"}}'
    with answering(429, content, headers) as (_, host), ChatClient(host, unrecorded) as client:
        reply = client.send("model", TURN)

    assert (reply.outcome.status, reply.outcome.reason) == (
        Status.REJECTED,
        "429 overloaded: Later.",
    )
    assert reply.retry_after_s == wait_s
