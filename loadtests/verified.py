"""Requests to a simulated model whose answers are known beforehand: what is lost, shows."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from deployments.engines.sim.requests import ChatRequest, CompletionRequest, parse_request

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
REQUEST_TIMEOUT_S = 120.0
"""Longer than any answer takes, also one that is retried and carried on several times."""
SHED_PAUSE_S = 1.0
LONGEST_MODEL_LEN = 1 << 30
DEFAULT_TOKENS = 64
"""The simulator's own."""

Body = dict[str, Any]


class Tally(msgspec.Struct):
    """What became of the requests."""

    sent: int = 0
    succeeded: int = 0
    """Answered in full, as if nothing had happened."""
    retried: int = 0
    """Of those, by the replies' own word."""
    shed: int = 0
    """Turned away with 429 and a `Retry-After`."""
    told: Counter[str] = msgspec.field(default_factory=Counter)
    """Answered with an error, or ended with an error event, by its code."""
    lost: Counter[str] = msgspec.field(default_factory=Counter)
    """Everything else: cut short, wrong, without a reason."""
    lost_ids: list[str] = []
    """Their ids, to find them in the routers' logs."""


class Lost(Exception):
    """An answer that is none."""


class Told(Exception):
    """An answer that is an error in OpenAI's shape."""


class VerifiedLoad:
    """Clients that send one request after the other and check every byte of the answers."""

    def __init__(self, url: str, model: str, rng: random.Random) -> None:
        self._url = url
        self._model = model
        self._rng = rng
        self.tally = Tally()

    async def run(self, clients: int, is_over: Callable[[], bool]) -> None:
        """Send until `is_over`, and wait for the last answers."""
        limits = httpx.Limits(max_connections=clients)
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=REQUEST_TIMEOUT_S, limits=limits) as http,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(clients):
                group.create_task(self._send_on(http, is_over))

    async def _send_on(self, http: httpx.AsyncClient, is_over: Callable[[], bool]) -> None:
        while not is_over():
            path, body, headers = self._request()
            headers["x-request-id"] = f"load-{self.tally.sent}"
            self.tally.sent += 1
            try:
                await self._send(http, path, body, headers)
            except Told as error:
                self.tally.told[str(error)] += 1
            except (Lost, httpx.HTTPError, ValueError) as error:
                self.tally.lost[f"{type(error).__name__}: {error}"[:200]] += 1
                self.tally.lost_ids.append(headers["x-request-id"])

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
            return TEXT, {**body, "prompt": text}, headers
        return CHAT, {**body, "messages": [{"role": "user", "content": text}]}, headers

    async def _send(
        self, http: httpx.AsyncClient, path: str, body: Body, headers: dict[str, str]
    ) -> None:
        async with http.stream("POST", path, json=body, headers=headers) as response:
            content = await response.aread()
        if response.status_code == 429:
            if "retry-after" not in response.headers:
                raise Lost("429 without a Retry-After")
            self.tally.shed += 1
            await asyncio.sleep(SHED_PAUSE_S)
            return
        if response.status_code != 200:
            raise Told(f"{response.status_code} {_code(json.loads(content))}")
        text, usage = _streamed(content) if "stream" in body else _whole(json.loads(content))
        expected, tokens = _expected(path, body)
        if text != expected:
            kind = "the beginning of a text" if expected.startswith(text) else "another text"
            raise Lost(f"{kind}: {len(text)} characters in place of {len(expected)}")
        if usage.get("completion_tokens") != tokens:
            raise Lost(f"usage {usage} in place of {tokens} tokens")
        self.tally.succeeded += 1
        self.tally.retried += "x-gateway-retries" in response.headers


def _expected(path: str, body: Body) -> tuple[str, int]:
    """The answer the simulator gives, and its tokens."""
    kind = ChatRequest if path == CHAT else CompletionRequest
    task = parse_request(json.dumps(body).encode(), kind)
    (answer,) = task.sequences(DEFAULT_TOKENS, LONGEST_MODEL_LEN)
    return answer.text, len(answer.words)


def _whole(answer: Body) -> tuple[str, Body]:
    (choice,) = answer["choices"]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    return text, answer["usage"]


def _streamed(content: bytes) -> tuple[str, Body]:
    *events, last, rest = content.decode().split("\n\n")
    if (last, rest) != ("data: [DONE]", ""):
        raise Lost(f"a stream that ends with {content[-60:]!r}")
    chunks = [json.loads(e.removeprefix("data: ")) for e in events if e.startswith("data: ")]
    errors = [chunk for chunk in chunks if "error" in chunk]
    if errors:
        raise Told(f"event {_code(errors[0])}")
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    if len({chunk["id"] for chunk in chunks}) != 1:
        raise Lost("a stream of several ids")
    if sum(choice["finish_reason"] is not None for choice in choices) != 1:
        raise Lost("a stream without one finish")
    if sum("role" in choice.get("delta", ()) for choice in choices) > 1:
        raise Lost("a stream with two beginnings")
    text = "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)
    return text, next(chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage"))


def _code(answer: Body) -> str:
    error = answer.get("error")
    if not isinstance(error, dict) or set(error) != {"message", "type", "param", "code"}:
        raise Lost(f"an error of another shape: {answer}"[:100])
    return str(error["code"])
