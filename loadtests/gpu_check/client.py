"""Client of the gateway that is checked."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx

from loadtests.gpu_check.document import MODEL
from loadtests.loadgen.client import CHAT_PATH

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """A stream that has come to its end, or broken off."""

    text: str
    finish_reason: str | None
    error: str
    """Message of an error event; empty if there was none."""


class CheckedGateway:
    """A gateway on this machine, whose routes for operators are open."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    @classmethod
    @contextmanager
    def at(cls, url: str) -> Iterator[Self]:
        """The gateway at an address."""
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as http:
            yield cls(http)

    def chat(self, text: str, model: str = MODEL, **more: object) -> httpx.Response:
        """One chat completion at temperature 0."""
        return self.http.post(CHAT_PATH, json=_body(text, model, more))

    @contextmanager
    def stream(self, text: str, **more: object) -> Iterator[httpx.Response]:
        """The same as a stream, under way."""
        body = _body(text, MODEL, {"stream": True, **more})
        with self.http.stream("POST", CHAT_PATH, json=body) as response:
            response.raise_for_status()
            yield response

    def replicas(self) -> list[dict[str, Any]]:
        """The replicas of the model, as operators see them."""
        found = self.http.get("/gateway/replicas", params={"model": MODEL}).raise_for_status()
        rows: list[dict[str, Any]] = found.json()["data"]
        return rows

    def condition(self, model: str = MODEL) -> Mapping[str, Any]:
        """How a model, or its adapter, stands."""
        card: Mapping[str, Any] = self.http.get(f"/v1/models/{model}").raise_for_status().json()
        return card


def read_events(lines: Iterator[str]) -> StreamedAnswer:
    """What the rest of a stream says."""
    text, reason, error = "", None, ""
    for line in lines:
        data = line.removeprefix("data: ").strip()
        if not line.startswith("data: ") or data == "[DONE]":
            continue
        event = json.loads(data)
        if "error" in event:
            error = str(event["error"].get("message"))
        for choice in event.get("choices", []):
            text += choice["delta"].get("content") or ""
            reason = choice.get("finish_reason") or reason
    return StreamedAnswer(text, reason, error)


def _body(text: str, model: str, more: Mapping[str, object]) -> dict[str, object]:
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 64, **more}
