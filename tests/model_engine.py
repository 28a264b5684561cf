"""An engine whose model knows one answer, in the shapes and with the rules of vLLM's streams."""

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.upstream.sse import payload, split

Body = dict[str, Any]
Token = tuple[str, str]
"""What it adds to: content, reasoning, a call's name or arguments; and the text."""
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
_PIECE = re.compile(r"</?\w*>| ?\w+|\n+|\s|[^\w\s]")


def pieces(text: str) -> list[str]:
    """The tokens of a text; like real ones, none begins before a space and ends after it."""
    return _PIECE.findall(text)


def said(text: str) -> list[Token]:
    """An answer that is only text."""
    return [("content", piece) for piece in pieces(text)]


@dataclass
class ModelEngine:
    """One replica; all of them give the same answer, each under an id of its own."""

    answer: list[Token]
    name: str = "a"
    chunk_tokens: int = 1
    """Tokens of a chunk."""
    finishes_late: bool = False
    """The finish comes in a chunk of its own."""
    has_tokenizer: bool = True
    template: str = "<assistant>"
    """How a message begins that the model is to write."""
    asked: list[Body] = field(default_factory=list)

    async def tokenize(self, body: bytes, answered_bytes: int = 0) -> list[int] | None:
        """The route `/tokenize`, which needs no hint."""
        del answered_bytes
        if not self.has_tokenizer:
            return None
        request = json.loads(body)
        text = self._rendered(request) if "messages" in request else request["prompt"]
        start = [1] if request.get("add_special_tokens", "prompt" in request) else []
        return start + [zlib.crc32(piece.encode()) for piece in pieces(text)]

    async def stream(self, path: str, body: bytes) -> list[bytes]:
        """The events of the answer to a request."""
        request = json.loads(body)
        self.asked.append(request)
        prompt_tokens = await self._prompt_tokens(request)
        kept = self._kept(request)
        indexes = range(request.get("n") or 1)
        events = [_data(self._chunk(path, i, [], None)) for i in indexes if path == CHAT]
        tokens = 0
        for i in indexes:
            for chunk, count in self._choice(path, request, i, kept):
                tokens += count
                if request.get("stream_options", {}).get("continuous_usage_stats"):
                    chunk["usage"] = _usage(prompt_tokens, tokens)
                events.append(_data(chunk))
        if request.get("stream_options", {}).get("include_usage"):
            chunk = self._chunk(path, 0, [], None)
            events.append(_data({**chunk, "choices": [], "usage": _usage(prompt_tokens, tokens)}))
        return [*events, b"data: [DONE]\n\n"]

    async def _prompt_tokens(self, request: Body) -> int:
        if isinstance(request.get("prompt"), list):
            return len(request["prompt"])
        ids = await replace(self, has_tokenizer=True).tokenize(json.dumps(request).encode())
        return len(ids or ())

    def _choice(
        self, path: str, request: Body, index: int, kept: int
    ) -> Iterator[tuple[Body, int]]:
        limit = request.get("max_completion_tokens") or request.get("max_tokens")
        rest = self.answer[kept:]
        is_whole = limit is None or len(rest) < limit
        given = rest if is_whole else rest[:limit]
        size = self.chunk_tokens
        batches = [given[start : start + size] for start in range(0, len(given), size)] or [[]]
        batches += [[]] if self.finishes_late else []
        for number, batch in enumerate(batches, 1):
            is_last = number == len(batches)
            finish = ("stop" if is_whole else "length") if is_last else None
            chunk = self._chunk(path, index, batch, finish)
            choice = chunk["choices"][0]
            if request.get("logprobs"):
                choice["logprobs"] = {"content": [{"token": text} for _, text in batch]}
            if request.get("return_token_ids"):
                choice["token_ids"] = [zlib.crc32(text.encode()) for _, text in batch]
            yield chunk, len(batch) + (1 if is_last and is_whole else 0)

    def _chunk(self, path: str, index: int, tokens: list[Token], finish: str | None) -> Body:
        text = "".join(text for channel, text in tokens if channel == "content")
        choice: Body = {"index": index, "logprobs": None, "finish_reason": finish}
        if path == COMPLETIONS:
            choice["text"] = text
        else:
            choice["delta"] = self._delta(tokens) if tokens or finish else _ROLE
        return {
            "id": f"cmpl-{self.name}",
            "created": ord(self.name),
            "model": f"model of {self.name}",
            "choices": [choice],
            "system_fingerprint": "vllm",
        }

    def _delta(self, tokens: list[Token]) -> Body:
        delta: Body = {}
        for channel, text in tokens:
            if channel in ("content", "reasoning"):
                delta[channel] = delta.get(channel, "") + text
            else:
                kind, _, number = channel.partition(" ")
                call: Body = {"index": int(number), "function": {kind: text}}
                if kind == "name":
                    call |= {"id": f"call-{self.name}-{number}", "type": "function"}
                    call["function"]["arguments"] = ""
                delta.setdefault("tool_calls", []).append(call)
        return delta

    def _rendered(self, request: Body) -> str:
        text = "".join(f"<{m['role']}>{_plain(m['content'])}</>" for m in request["messages"])
        if request.get("continue_final_message"):
            return text.removesuffix("</>")
        return text + self.template if request.get("add_generation_prompt", True) else text

    def _kept(self, request: Body) -> int:
        """Tokens of the answer that the prompt ends with."""
        if isinstance(request.get("prompt"), list):
            ids = [zlib.crc32(text.encode()) for _, text in self.answer]
            return next(
                n for n in range(len(ids), -1, -1) if request["prompt"][-n or 9999 :] == ids[:n]
            )
        text = request.get("prompt") or self._rendered(request)
        starts = ("".join(text for _, text in self.answer[:n]) for n in range(len(self.answer) + 1))
        return max(n for n, start in enumerate(starts) if text.endswith(start))


@dataclass
class Summary:
    """What a client makes of a stream."""

    ids: set[str] = field(default_factory=set)
    roles: list[tuple[int, str]] = field(default_factory=list)
    texts: dict[tuple[int, str, int], str] = field(default_factory=dict)
    call_ids: dict[int, str] = field(default_factory=dict)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Body] = field(default_factory=list)
    finishes: list[tuple[int, str]] = field(default_factory=list)
    usages: list[Body] = field(default_factory=list)
    last_usage: Body | None = None
    dones: int = 0

    def add(self, index: int, kind: str, number: int, text: str | None) -> None:
        """A piece of a text."""
        if text:
            key = (index, kind, number)
            self.texts[key] = self.texts.get(key, "") + text


def summary(stream: bytes) -> Summary:
    """What a client makes of a whole stream."""
    seen = Summary()
    for event in split(stream):
        assert seen.dones == 0, "nothing comes after the end"
        if payload(event) == b"[DONE]":
            seen.dones += 1
            continue
        chunk = json.loads(payload(event))
        seen.ids.add(f"{chunk['id']} {chunk['created']} {chunk['model']}")
        if not chunk["choices"]:
            seen.usages.append(chunk["usage"])
        seen.last_usage = chunk.get("usage", seen.last_usage)
        for choice in chunk["choices"]:
            _read(choice, seen)
    return seen


def _read(choice: Body, seen: Summary) -> None:
    index = choice["index"]
    delta = choice.get("delta", {})
    if "role" in delta:
        seen.roles.append((index, delta["role"]))
    seen.add(index, "content", 0, choice.get("text") or delta.get("content"))
    seen.add(index, "reasoning", 0, delta.get("reasoning"))
    for call in delta.get("tool_calls", []):
        number, function = call["index"], call["function"]
        if "id" in call:
            assert number not in seen.call_ids
            seen.call_ids[number] = call["id"]
        seen.add(index, "name", number, function.get("name"))
        seen.add(index, "arguments", number, function.get("arguments"))
    seen.token_ids += choice.get("token_ids") or []
    seen.logprobs += (choice["logprobs"] or {}).get("content", [])
    if choice["finish_reason"]:
        seen.finishes.append((index, choice["finish_reason"]))


_ROLE = {"role": "assistant", "content": ""}


def _plain(content: str | list[Body]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _usage(prompt_tokens: int, completion_tokens: int) -> Body:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _data(chunk: Body) -> bytes:
    return b"data: %b\n\n" % json.dumps(chunk).encode()
