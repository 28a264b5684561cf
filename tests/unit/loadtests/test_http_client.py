"""The HTTP client of locust users: requests that it sends, and outcomes of responses."""

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest

from loadtests.loadgen.outcome import RequestOutcome, Status
from loadtests.locust_users.http_client import ChatClient, ChatReply
from loadtests.workloads.turn import DialogueMessage, Function, ToolCall, Turn
from tests.http_server import Handler, serving

TURN = Turn(
    messages=(
        DialogueMessage("user", "What is the weather like?"),
        DialogueMessage("assistant", "", (ToolCall("call_1", Function("look", '{"at": "sky"}')),)),
        DialogueMessage("tool", "blue", tool_call_id="call_1"),
    ),
    answer_tokens=7,
    is_batch=True,
)
FIRST = b'data: {"choices": [{"delta": {"content": "Fair"}}]}\n\n'
LAST = (
    b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, '
    b'"prompt_tokens_details": {"cached_tokens": 4}}}\n\ndata: [DONE]\n\n'
)


@contextmanager
def answering(
    status: int = 200, content: bytes = FIRST + LAST, headers: Mapping[str, str] | None = None
) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """The URL of a server that answers so, and the requests that it got."""
    requests: list[tuple[str, dict[str, str], bytes]] = []

    class Answering(Handler):
        def post(self) -> None:
            found = {name.lower(): value for name, value in self.headers.items()}
            requests.append((self.path, found, self.body()))
            self.answer(status, content, headers)

    with serving(Answering) as port:
        yield f"http://127.0.0.1:{port}", requests


def reply_to(status: int, content: bytes, headers: Mapping[str, str] | None = None) -> ChatReply:
    """What the client makes of a response."""
    with answering(status, content, headers) as (url, _), client(url) as chats:
        return chats.send("model", TURN)


def client(url: str) -> ChatClient:
    """A client whose outcomes are those of its replies."""
    return ChatClient(url, lambda _: None)


def test_a_turn_is_sent_as_openai_defines_it() -> None:
    """As a stream with usage, with tool calls and results; key and priority only if there are."""
    with answering() as (url, requests):
        with ChatClient(f"{url}/base/", lambda _: None, "secret") as chats:
            chats.send("model", TURN)
        with client(url) as chats:
            chats.send("model", Turn(messages=TURN.messages, answer_tokens=7))

    (path, headers, body), (_, plain_headers, _) = requests
    assert path == "/base/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret"
    assert headers["x-gateway-priority"] == "batch"
    assert not {"authorization", "x-gateway-priority"} & {*plain_headers}
    function = {"name": "look", "arguments": '{"at": "sky"}'}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    assert json.loads(body) == {
        "model": "model",
        "messages": [
            {"role": "user", "content": "What is the weather like?"},
            {"role": "assistant", "content": "", "tool_calls": calls},
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
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj"
        f" /CN=localhost -addext subjectAltName=DNS:localhost -out {certificate} -keyout {key}"
        .split(),
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://localhost:{server.getsockname()[1]}"
        done = gevent.get_hub().threadpool.spawn(_serve_tls, server, context)
        with client(url) as chats:
            unknown = chats.send("model", TURN).outcome
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with client(url) as chats:
            trusted = chats.send("model", TURN).outcome
        done.get()

    assert unknown.status is Status.FAILED
    assert "CERTIFICATE_VERIFY_FAILED" in unknown.reason
    assert (trusted.status, trusted.reason) == (Status.ANSWERED, "")


def _serve_tls(server: socket.socket, context: ssl.SSLContext) -> None:
    """Answer one request of two connections, of which the first does not trust us."""
    for _ in range(2):
        connection, _ = server.accept()
        with connection:
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + FIRST + LAST)
            except ssl.SSLError:
                continue


def test_an_answer_is_measured() -> None:
    """Its text, its usage, and times in their order; lines may end with a carriage return."""
    reply = reply_to(200, (FIRST + LAST).replace(b"\n", b"\r\n"))

    outcome = reply.outcome
    assert reply.text == "Fair"
    assert (outcome.status, outcome.reason) == (Status.ANSWERED, "")
    assert (outcome.prompt_tokens, outcome.cached_tokens, outcome.completion_tokens) == (9, 4, 2)
    assert outcome.ttft_s is not None
    assert 0 < outcome.ttft_s <= outcome.e2e_s


def test_times_count_from_when_a_request_was_due() -> None:
    """A client that sends late makes nothing look faster; its lateness is recorded."""
    recorded: list[RequestOutcome] = []
    with answering() as (url, _), ChatClient(url, recorded.append) as chats:
        chats.send("model", TURN, time.perf_counter() - 60)
        chats.send("model", TURN)

    late, prompt = recorded
    assert late.ttft_s is not None
    assert 60 <= late.late_s < late.ttft_s <= late.e2e_s
    assert prompt.late_s == 0
    assert prompt.due_s - late.due_s >= 60


def test_a_request_cut_by_the_end_of_the_test_is_recorded() -> None:
    """It is neither an answer nor a failure."""
    recorded: list[RequestOutcome] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:  # never answers
        chats = ChatClient(f"http://127.0.0.1:{silent.getsockname()[1]}", recorded.append)
        user = gevent.spawn(chats.send, "model", TURN)
        gevent.sleep(0.05)
        user.kill()

    assert [(outcome.status, outcome.reason) for outcome in recorded] == [(Status.CUT, "")]


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (500, b'{"error": {"message": "Oh.", "type": "server_error"}}', "500 server_error: Oh."),
        (404, b"nothing here", "404 nothing here"),
        (200, FIRST + b"data: [DONE]", "the stream ended without [DONE]"),
        (200, FIRST + b'data: {"error": {"message": "Lost."}}\n\n' + LAST, "error event: Lost."),
    ],
)
def test_an_answer_that_is_not_whole_has_failed(status: int, content: bytes, reason: str) -> None:
    """Whatever came before; the reason is given."""
    outcome = reply_to(status, content).outcome
    assert (outcome.status, outcome.reason) == (Status.FAILED, reason)


def test_a_broken_or_refused_connection_is_a_failure() -> None:
    """With its reason."""
    broken = reply_to(200, FIRST, {"transfer-encoding": "chunked"}).outcome
    with answering() as (url, _):
        pass
    with client(url) as chats:
        refused = chats.send("model", TURN).outcome

    assert (broken.status, refused.status) == (Status.FAILED, Status.FAILED)
    assert broken.reason
    assert "ConnectionRefusedError" in refused.reason


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({"retry-after": "3"}, 3.0), ({}, 1.0), ({"retry-after": "0"}, 0.1)],
)
def test_a_rejection_says_when_to_retry(headers: dict[str, str], wait_s: float) -> None:
    """Without a `Retry-After` it is a second, and never no time at all."""
    reply = reply_to(429, b'{"error": {"message": "Later.", "code": "overloaded"}}', headers)

    assert reply.outcome.status is Status.REJECTED
    assert reply.outcome.reason == "429 overloaded: Later."
    assert reply.retry_after_s == wait_s
