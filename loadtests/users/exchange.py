"""One request and its answer over HTTP, cheap enough for hundreds of users in a process."""

import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Self

import gevent.ssl
import msgspec
from geventhttpclient import URL, HTTPClient
from geventhttpclient.response import HTTPSocketPoolResponse

from loadtests.users.answer import Answer, Broken, reason_of
from loadtests.users.outcome import Fate, Outcome
from loadtests.workloads.turn import Message, Turn

ROUTE = "/v1/chat/completions"
CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 300.0
"""The longest wait for another byte of an answer."""
RETRY_AFTER_S = 1.0
"""Where a rejection does not say when to come again."""
LEAST_RETRY_AFTER_S = 0.1
"""Whoever comes again at once does nothing but ask."""


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = True


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    messages: list[Message]
    max_tokens: int
    stream: bool = True
    stream_options: _StreamOptions = _StreamOptions()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a request, what the model says, and when to try again, if told to."""

    outcome: Outcome
    text: str = ""
    retry_after_s: float = 0.0


class _End(msgspec.Struct, frozen=True):
    fate: Fate
    reason: str = ""
    retry_after_s: float = 0.0


class Exchange:
    """Sends requests to one server, up to `concurrency` at a time, over connections it keeps.

    `note` is told what came of each, also of those whose user is ended in the middle.
    """

    def __init__(
        self,
        host: str,
        note: Callable[[Outcome], None],
        api_key: str = "",
        concurrency: int = 1,
    ) -> None:
        self._note = note
        url = URL(host)
        self._path = url.path.rstrip("/") + ROUTE
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._http = HTTPClient.from_url(
            url,
            concurrency=concurrency,
            connection_timeout=CONNECT_TIMEOUT_S,
            network_timeout=SILENCE_TIMEOUT_S,
            ssl_context_factory=_trusting,
        )

    def __enter__(self) -> Self:
        """Connections are opened as they are needed."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._http.close()

    def send(self, model: str, turn: Turn, due_s: float | None = None) -> Reply:
        """Send a request and read all of its answer; whatever goes wrong is in the outcome.

        Times count from `due_s`, of `time.perf_counter`; without it, from now.
        """
        start_s = time.perf_counter()
        due_s = start_s if due_s is None else due_s
        due_at_s = time.time() - (start_s - due_s)
        answer, end = Answer(), _End(Fate.CUT)
        try:
            end = self._ask(model, turn, answer)
        except Broken as broken:
            end = _End(Fate.FAILED, str(broken))
        except (OSError, HTTPException) as error:
            end = _End(Fate.FAILED, f"{type(error).__name__}: {error}")
        finally:
            outcome = Outcome(
                model=model,
                due_s=due_at_s,
                late_s=start_s - due_s,
                fate=end.fate,
                reason=end.reason,
                e2e_s=time.perf_counter() - due_s,
                ttft_s=None if answer.first_s is None else answer.first_s - due_s,
                itl_s=answer.itl_s,
                prompt_tokens=answer.usage.prompt_tokens,
                cached_tokens=answer.usage.cached_tokens,
                completion_tokens=answer.usage.completion_tokens,
            )
            self._note(outcome)
        return Reply(outcome=outcome, text=answer.text, retry_after_s=end.retry_after_s)

    def _ask(self, model: str, turn: Turn, answer: Answer) -> _End:
        headers = self._headers | ({"x-gateway-priority": "batch"} if turn.is_batch else {})
        body = _Body(model=model, messages=[*turn.messages], max_tokens=turn.answer_tokens)
        response = self._http.request("POST", self._path, msgspec.json.encode(body), headers)
        if response.status_code == 200:
            _read(response, answer)
            return _End(Fate.ANSWERED)
        reason = f"{response.status_code} {reason_of(response.read())}"
        if response.status_code == 429:
            return _End(Fate.REJECTED, reason, _retry_after_s(response))
        return _End(Fate.FAILED, reason)


def _trusting(**_: object) -> gevent.ssl.SSLContext:
    """Whom the machine trusts, `SSL_CERT_FILE` included; the client's own list has no company's."""
    context: gevent.ssl.SSLContext = gevent.ssl.create_default_context()
    return context


def _read(response: HTTPSocketPoolResponse, answer: Answer) -> None:
    while line := response.readline(b"\n"):  # events of one line, however these end
        answer.read(line, time.perf_counter())
    if not answer.is_done:
        raise Broken("the stream ended without [DONE]")


def _retry_after_s(response: HTTPSocketPoolResponse) -> float:
    try:
        return max(LEAST_RETRY_AFTER_S, float(str(response.get("retry-after"))))
    except ValueError:
        return RETRY_AFTER_S
