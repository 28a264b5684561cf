"""Load on a simulated model whose answers are known in advance: every byte is checked."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from deployments.engines.sim.requests import ChatRequest, CompletionRequest, parse_request
from loadtests.launch import HOST
from loadtests.loadgen.client import CHAT_PATH, Client
from loadtests.loadgen.connection import Response

COMPLETIONS_PATH = "/v1/completions"
REQUEST_TIMEOUT_S = 120.0
"""More than any answer takes, even if it is retried and resumed several times."""
SHED_PAUSE_S = 1.0
CUT_PAUSE_S = 0.2
"""Pause of a client whose connection broke off or was refused."""
MAX_MODEL_LEN = 1 << 30
DEFAULT_TOKENS = 64
"""The simulator's own default."""

Body = dict[str, Any]


class Counts(msgspec.Struct, rename={"errors": "told"}):
    """Results of the requests."""

    sent: int = 0
    succeeded: int = 0
    """Answered in full, as if nothing had happened."""
    retried: int = 0
    """Succeeded requests that the gateway sent more than once, by its headers."""
    shed: int = 0
    """Rejected with a 429 and a `Retry-After`."""
    cut: int = 0
    """Broken off when the router or the HAProxy that carried them was killed."""
    errors: Counter[str] = msgspec.field(default_factory=Counter)
    """Answered with an OpenAI error, or ended with an error event, by its code."""
    lost: Counter[str] = msgspec.field(default_factory=Counter)
    """Everything else: cut short, wrong, or an error of another shape."""
    lost_ids: list[str] = []
    """Their request ids, to find them in the routers' logs."""
    completion_tokens: dict[str, int] = {}
    """Tokens of the answers that succeeded, by request id, if they are kept."""
    times_s: dict[str, tuple[float, float]] = {}
    """When requests were sent, and when their clients had the answer or gave up, in Unix time, by
    request id, if tokens are kept."""


def merged(parts: Iterable[Counts]) -> Counts:
    """The sums of several."""
    total = Counts()
    for part in parts:
        for field in ("sent", "succeeded", "retried", "shed", "cut"):
            setattr(total, field, getattr(total, field) + getattr(part, field))
        total.errors += part.errors
        total.lost += part.lost
        total.lost_ids += part.lost_ids
        total.completion_tokens |= part.completion_tokens
        total.times_s |= part.times_s
    return total


class Lost(Exception):
    """An answer that is neither right nor an error."""


class CutOff(Lost):
    """A stream that ends in its middle."""


class ErrorResponse(Exception):
    """An answer that is an error in OpenAI's shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSource:
    """Who sends a load."""

    name: str = "load"
    """Beginning of all request ids."""
    api_key: str = ""
    clients: int = 0
    """How many clients send it; 0: a part of all."""
    keeps_tokens: bool = False
    """Whether the counts have the tokens of each request that succeeded."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of all requests."""
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}


class CheckedLoad:
    """Clients that send one request after the other and check every byte of the answers.

    `may_be_cut`: whether what carried a request may have been killed between two times of the
    event loop's clock, which excuses a connection that breaks off, and nothing else.
    """

    def __init__(
        self,
        url: str,
        model: str,
        rng: random.Random,
        may_be_cut: Callable[[float, float], bool] = lambda _began_s, _ended_s: False,
        sender: LoadSource | None = None,
    ) -> None:
        self._sender = sender or LoadSource()
        self._may_be_cut = may_be_cut
        self._port = urlsplit(url).port or 80
        self._model = model
        self._rng = rng
        self.counts = Counts()

    async def run(self, clients: int, is_over: Callable[[], bool]) -> None:
        """Send until `is_over`, and wait for the last answers."""
        async with (
            Client(
                HOST, self._port, timeout_s=REQUEST_TIMEOUT_S, headers=self._sender.headers
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(clients):
                group.create_task(self._send_until(client, is_over))

    async def _send_until(self, client: Client, is_over: Callable[[], bool]) -> None:
        while not is_over():
            path, body, headers = self._request()
            headers["x-request-id"] = f"{self._sender.name}-{self.counts.sent}"
            self.counts.sent += 1
            began_s, sent_s = asyncio.get_running_loop().time(), time.time()
            try:
                response = await client.post(client.encoded(path, body, headers))
                if response.status == 429:
                    await self._handle_shed(response)
                else:
                    tokens = self._check(response, path, body)
                    if self._sender.keeps_tokens:
                        self.counts.completion_tokens[headers["x-request-id"]] = tokens
            except ErrorResponse as error:
                self.counts.errors[str(error)] += 1
            except (Lost, OSError, ValueError) as error:  # a TimeoutError is an OSError
                ended_s = asyncio.get_running_loop().time()
                if isinstance(error, CutOff | OSError) and self._may_be_cut(began_s, ended_s):
                    self.counts.cut += 1
                    await asyncio.sleep(CUT_PAUSE_S)
                    continue
                self.counts.lost[f"{type(error).__name__}: {error}"[:200]] += 1
                self.counts.lost_ids.append(headers["x-request-id"])
            finally:
                if self._sender.keeps_tokens:
                    self.counts.times_s[headers["x-request-id"]] = sent_s, time.time()

    def _request(self) -> tuple[str, Body, dict[str, str]]:
        rng = self._rng
        text = f"Conversation {rng.randrange(30)}. " * rng.randrange(1, 60) + str(rng.random())
        body: Body = {"model": self._model, "max_tokens": rng.randrange(8, 120)}
        if rng.random() < 0.5:
            body["temperature"] = 0
        if rng.random() < 0.75:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        headers = {"x-gateway-priority": "batch"} if rng.random() < 0.2 else {}
        if rng.random() < 0.25:
            return COMPLETIONS_PATH, {**body, "prompt": text}, headers
        return CHAT_PATH, {**body, "messages": [{"role": "user", "content": text}]}, headers

    async def _handle_shed(self, response: Response) -> None:
        if response.header("retry-after") is None:
            raise Lost("429 without a Retry-After")
        self.counts.shed += 1
        await asyncio.sleep(SHED_PAUSE_S)

    def _check(self, response: Response, path: str, body: Body) -> int:
        """Check an answer, and return its tokens."""
        content = response.body
        if response.status != 200:
            raise ErrorResponse(f"{response.status} {_error_code(json.loads(content))}")
        text, usage = _streamed(content) if "stream" in body else _whole(json.loads(content))
        expected, tokens = _expected(path, body)
        if text != expected:
            kind = "the beginning of a text" if expected.startswith(text) else "another text"
            raise Lost(f"{kind}: {len(text)} characters in place of {len(expected)}")
        if usage.get("completion_tokens") != tokens:
            raise Lost(f"usage {usage} in place of {tokens} tokens")
        self.counts.succeeded += 1
        self.counts.retried += response.header("x-gateway-retries") is not None
        return tokens


def _expected(path: str, body: Body) -> tuple[str, int]:
    """The simulator's answer, and its tokens."""
    kind = ChatRequest if path == CHAT_PATH else CompletionRequest
    task = parse_request(json.dumps(body).encode(), kind)
    (answer,) = task.sequences(DEFAULT_TOKENS, MAX_MODEL_LEN)
    return answer.text, len(answer.words)


def _whole(answer: Body) -> tuple[str, Body]:
    (choice,) = answer["choices"]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    return text, answer["usage"]


def _streamed(content: bytes) -> tuple[str, Body]:
    *events, last, rest = content.decode().split("\n\n")
    if (last, rest) != ("data: [DONE]", ""):
        raise CutOff(f"a stream that ends with {content[-60:]!r}")
    chunks = [json.loads(e.removeprefix("data: ")) for e in events if e.startswith("data: ")]
    if errors := [chunk for chunk in chunks if "error" in chunk]:
        raise ErrorResponse(f"event {_error_code(errors[0])}")
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    if len({chunk["id"] for chunk in chunks}) != 1:
        raise Lost("a stream of several ids")
    if sum(choice["finish_reason"] is not None for choice in choices) != 1:
        raise Lost("a stream without one finish")
    if sum("role" in choice.get("delta", ()) for choice in choices) > 1:
        raise Lost("a stream with two beginnings")
    text = "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)
    return text, next(chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage"))


def _error_code(answer: Body) -> str:
    error = answer.get("error")
    if not isinstance(error, dict) or set(error) != {"message", "type", "param", "code"}:
        raise Lost(f"an error of another shape: {answer}"[:100])
    return str(error["code"])
