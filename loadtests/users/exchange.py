"""One request and its answer over HTTP, cheap enough for hundreds of users in a process."""

import time
from http.client import HTTPException
from typing import Self

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


class Exchange:
    """Sends requests to one server, up to `concurrency` at a time, over connections it keeps."""

    def __init__(self, host: str, api_key: str = "", concurrency: int = 1) -> None:
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
        )

    def __enter__(self) -> Self:
        """Connections are opened as they are needed."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._http.close()

    def send(self, model: str, turn: Turn) -> Reply:
        """Send a request and read all of its answer; whatever goes wrong is in the outcome."""
        headers = self._headers | ({"x-gateway-priority": "batch"} if turn.is_batch else {})
        body = _Body(model=model, messages=[*turn.messages], max_tokens=turn.answer_tokens)
        sent_s, start_s = time.time(), time.perf_counter()
        answer = Answer()
        fate, reason, retry_after_s = Fate.ANSWERED, "", 0.0
        try:
            response = self._http.request("POST", self._path, msgspec.json.encode(body), headers)
            if response.status_code == 200:
                _read(response, answer)
            else:
                reason = f"{response.status_code} {reason_of(response.read())}"
                is_rejection = response.status_code == 429
                fate = Fate.REJECTED if is_rejection else Fate.FAILED
                retry_after_s = _retry_after_s(response)
        except Broken as broken:
            fate, reason = Fate.FAILED, str(broken)
        except (OSError, HTTPException) as error:
            fate, reason = Fate.FAILED, f"{type(error).__name__}: {error}"
        outcome = Outcome(
            model=model,
            sent_s=sent_s,
            fate=fate,
            reason=reason,
            e2e_s=time.perf_counter() - start_s,
            ttft_s=None if answer.first_s is None else answer.first_s - start_s,
            itl_s=answer.itl_s,
            prompt_tokens=answer.usage.prompt_tokens,
            cached_tokens=answer.usage.cached_tokens,
            completion_tokens=answer.usage.completion_tokens,
        )
        return Reply(outcome=outcome, text=answer.text, retry_after_s=retry_after_s)


def _read(response: HTTPSocketPoolResponse, answer: Answer) -> None:
    while event := response.readline(b"\n\n"):
        answer.read(event, time.perf_counter())
    if not answer.is_done:
        raise Broken("the stream ended without [DONE]")


def _retry_after_s(response: HTTPSocketPoolResponse) -> float:
    try:
        return float(str(response.get("retry-after")))
    except ValueError:
        return RETRY_AFTER_S
