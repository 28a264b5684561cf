"""HTTP client of locust's users: streamed chats on gevent, cheap enough for hundreds of users."""

import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Self

import gevent.ssl
import msgspec
from geventhttpclient import URL, HTTPClient
from geventhttpclient.response import HTTPSocketPoolResponse

from loadtests.loadgen.client import CHAT_PATH
from loadtests.loadgen.outcome import RequestEnd, RequestOutcome, Status
from loadtests.loadgen.sse import ChatStream, IncompleteStream
from loadtests.workloads.turn import DialogueMessage, Turn

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 300.0
"""The longest wait for another byte of an answer."""
DEFAULT_RETRY_AFTER_S = 1.0
"""Pause after a 429 without a `Retry-After`."""
MIN_RETRY_AFTER_S = 0.1


class _UsageOptions(msgspec.Struct, frozen=True):
    include_usage: bool = True


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    messages: list[DialogueMessage]
    max_tokens: int
    stream: bool = True
    stream_options: _UsageOptions = _UsageOptions()


class ChatReply(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a request, the answer's text, and the `Retry-After` of a rejection."""

    outcome: RequestOutcome
    text: str = ""
    retry_after_s: float = 0.0


class ChatClient:
    """Sends chats to one server, up to `concurrency` at a time, over kept connections.

    `record` is called with every outcome, also of requests that are cut by the end of the test.
    `team`: named beside the model in outcomes.
    """

    def __init__(
        self,
        root: str,
        record: Callable[[RequestOutcome], None],
        api_key: str = "",
        concurrency: int = 1,
        team: str = "",
    ) -> None:
        self._record = record
        self._suffix = f" for {team}" if team else ""
        url = URL(root)
        self._path = url.path.rstrip("/") + CHAT_PATH
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._http = HTTPClient.from_url(
            url,
            concurrency=concurrency,
            connection_timeout=CONNECT_TIMEOUT_S,
            network_timeout=READ_TIMEOUT_S,
            ssl_context_factory=_system_trust,
        )

    def __enter__(self) -> Self:
        """Return itself; connections are opened as needed."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()

    def send(self, model: str, turn: Turn, due_s: float | None = None) -> ChatReply:
        """Send a request and read the whole answer; errors are in the outcome.

        Durations count from `due_s` (of `time.perf_counter`), by default from now.
        """
        sent_s = time.perf_counter()
        due_s = sent_s if due_s is None else due_s
        due_at_s = time.time() - (sent_s - due_s)
        stream, end, retry_after_s = ChatStream(), RequestEnd(Status.CUT), 0.0
        try:
            end, retry_after_s = self._exchange(model, turn, stream)
        except IncompleteStream as error:
            end = RequestEnd(Status.FAILED, 200, str(error))
        except (OSError, HTTPException) as error:
            end = RequestEnd.of_error(error)
        finally:  # also if the test ends and this user is killed
            end_s = time.perf_counter()
            outcome = RequestOutcome.of(end, stream, due_s=due_s, sent_s=sent_s, end_s=end_s)
            outcome = msgspec.structs.replace(outcome, model=model + self._suffix, due_s=due_at_s)
            self._record(outcome)
        return ChatReply(outcome=outcome, text=stream.text, retry_after_s=retry_after_s)

    def _exchange(self, model: str, turn: Turn, stream: ChatStream) -> tuple[RequestEnd, float]:
        headers = self._headers | ({"x-gateway-priority": "batch"} if turn.is_batch else {})
        body = _Body(model=model, messages=[*turn.messages], max_tokens=turn.answer_tokens)
        response = self._http.request("POST", self._path, msgspec.json.encode(body), headers)
        if response.status_code != 200:
            end = RequestEnd.of_response(int(response.status_code), response.read())
            return end, _retry_after_s(response)
        while line := response.readline(b"\n"):
            stream.read(line, time.perf_counter())
        stream.require_end()
        return RequestEnd(Status.ANSWERED, 200), 0.0


def _system_trust(**_: object) -> gevent.ssl.SSLContext:
    """The system's certificates, `SSL_CERT_FILE` included; the client's own list has fewer."""
    context: gevent.ssl.SSLContext = gevent.ssl.create_default_context()
    return context


def _retry_after_s(response: HTTPSocketPoolResponse) -> float:
    try:
        return max(MIN_RETRY_AFTER_S, float(str(response.get("retry-after"))))
    except ValueError:
        return DEFAULT_RETRY_AFTER_S
