"""Requests with something wrong in them: right ones, of all routes, mutated at random.

Each is a client's fault or none at all, so no answer may be a 5xx, and every error must have the
shape of its route's API.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Place = tuple[Any, Any]
"""An object or a list, and a key of it."""

LIMITS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"})
"""Fields that keep an answer short; they get no large values, and are never left out."""
ODD: Sequence[object] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, 1.5, -1e308, 1e308, "", " ", "x", "\0"),
    *("\ud800", "null", "nan", "é\N{GRINNING FACE}", "../../etc/passwd", "x" * 5000, "{}", "5"),
    *([], [[]], [None], [{}], {}, {"": ""}, {"type": "nonsense"}, {"$ref": "#"}, [[[[[[]]]]]]),
)
SMALL: Sequence[object] = (None, True, 0, -1, 1.5, "", "x", [], {}, "5", 2**70)
FIELDS = (
    *("temperature", "top_p", "top_k", "n", "stop", "stream", "stream_options", "logprobs", "seed"),
    *("top_logprobs", "logit_bias", "response_format", "tools", "tool_choice", "functions", "text"),
    *("function_call", "parallel_tool_calls", "user", "metadata", "service_tier", "modalities"),
    *("prediction", "reasoning", "reasoning_effort", "include", "instructions", "truncation"),
    *("previous_response_id", "conversation", "background", "store", "system", "thinking"),
    *("stop_sequences", "output_config", "output_format", "echo", "suffix", "best_of", "audio"),
    *("encoding_format", "dimensions", "structured_outputs", "prompt_logprobs", "messages"),
    *(
        "input",
        "prompt",
        "max_tokens",
        "max_output_tokens",
        "presence_penalty",
        "min_p",
        "priority",
    ),
    *("chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"),
    *("kv_transfer_params", "cache_salt", "vllm_xargs", "truncate_prompt_tokens", "verbosity"),
)
"""Fields that some route knows."""

_WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_FUNCTION = {"name": "f", "description": "d", "parameters": _WEATHER}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": "x"}'}}
_USER = {"role": "user", "content": "Say hello."}
_PARTS = {"role": "user", "content": [{"type": "text", "text": "Say hello."}]}


@dataclass(frozen=True, slots=True)
class MutatedRequest:
    """A POST."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def right_requests(model: str, embedding_model: str) -> list[tuple[str, dict[str, Any]]]:
    """What is mutated: a path and a body for each kind of request."""
    chat = {"model": model, "max_tokens": 4, "messages": [_USER]}
    claude = {"model": model, "max_tokens": 4, "messages": [_USER]}
    response = {"model": model, "max_output_tokens": 16, "input": "Say hello."}
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {"city": "x"}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "y"}]}
    turns = [_USER, {"role": "assistant", "content": None, "tool_calls": [_CALL]}]
    format_ = {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}}
    return [
        ("/v1/chat/completions", chat),
        (
            "/v1/chat/completions",
            {**chat, "stream": True, "stream_options": {"include_usage": True}},
        ),
        (
            "/v1/chat/completions",
            {
                **chat,
                "messages": [
                    {"role": "system", "content": "s"},
                    *turns,
                    {"role": "tool", "tool_call_id": "c", "content": "y"},
                    _PARTS,
                ],
                "tools": [{"type": "function", "function": _FUNCTION}],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
        ),
        (
            "/v1/chat/completions",
            {
                **chat,
                "response_format": format_,
                "logprobs": True,
                "top_logprobs": 1,
                "n": 1,
                "temperature": 1,
                "top_p": 1,
                "stop": ["x"],
                "seed": 1,
                "logit_bias": {"5": 1},
            },
        ),
        (
            "/v1/chat/completions",
            {**chat, "functions": [_FUNCTION], "function_call": {"name": "f"}},
        ),
        (
            "/v1/completions",
            {
                "model": model,
                "prompt": ["a", "b"],
                "max_tokens": 4,
                "n": 1,
                "logprobs": 1,
                "echo": True,
                "stop": "x",
                "temperature": 1,
            },
        ),
        ("/v1/completions", {"model": model, "prompt": [5, 6], "max_tokens": 4, "stream": True}),
        (
            "/v1/embeddings",
            {"model": embedding_model, "input": ["a", "b"], "encoding_format": "float"},
        ),
        (
            "/v1/responses",
            {**response, "stream": True, "instructions": "i", "metadata": {"a": "b"}},
        ),
        (
            "/v1/responses",
            {
                **response,
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                    {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
                    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c", "output": "y"},
                    {"type": "reasoning", "id": "r", "summary": []},
                ],
                "tools": [{"type": "function", **_FUNCTION}],
                "tool_choice": "auto",
                "text": {"format": {"type": "json_schema", "name": "a", "schema": _SCHEMA}},
                "reasoning": {"effort": "low"},
                "include": ["message.output_text.logprobs"],
            },
        ),
        ("/v1/messages", {**claude, "stream": True, "system": [{"type": "text", "text": "s"}]}),
        (
            "/v1/messages",
            {
                **claude,
                "messages": [
                    _PARTS,
                    {"role": "assistant", "content": [use]},
                    {"role": "user", "content": [result]},
                ],
                "tools": [{"name": "f", "input_schema": _WEATHER}],
                "tool_choice": {"type": "tool", "name": "f"},
                "stop_sequences": ["x"],
                "thinking": {"type": "enabled", "budget_tokens": 1024},
            },
        ),
        ("/v1/messages/count_tokens", {"model": model, "messages": [_USER], "system": "s"}),
        ("/tokenize", {"model": model, "prompt": "a"}),
        ("/tokenize", {"model": model, "messages": [_USER]}),
        ("/detokenize", {"model": model, "tokens": [5, 6]}),
        ("/pooling", {"model": embedding_model, "input": "a"}),
        ("/v1/score", {"model": embedding_model, "text_1": "a", "text_2": ["b", "c"]}),
        ("/v1/rerank", {"model": embedding_model, "query": "a", "documents": ["b", "c"]}),
    ]


class RequestMutations:
    """Makes up mutated requests without end; the same ones for the same seed."""

    def __init__(self, seed: int, model: str = "demo", embedding_model: str = "demo-embed") -> None:
        self._rng = random.Random(seed)  # noqa: S311 - no secrets
        self._right = right_requests(model, embedding_model)

    def __iter__(self) -> Iterator[MutatedRequest]:
        """Yield one request after the other."""
        while True:
            yield self.next()

    def next(self) -> MutatedRequest:
        """Return any request."""
        path, right = self._rng.choice(self._right)
        body = copy.deepcopy(right)
        for _ in range(self._rng.choice([1, 1, 1, 2, 3])):
            changes: list[Callable[[dict[str, Any]], None]] = [
                *([self._replace] * 5),
                *([self._drop] * 2),
                *(self._add, self._wrap, self._repeat, self._swap),
            ]
            if body:
                self._rng.choice(changes)(body)
        return MutatedRequest(path, self._bytes(body), self._headers())

    def _replace(self, body: dict[str, Any]) -> None:
        holder, key = self._place(body)
        values = SMALL if key in LIMITS or key == "tokens" else ODD
        holder[key] = copy.deepcopy(self._rng.choice(values))

    def _drop(self, body: dict[str, Any]) -> None:
        holder, key = self._place(body)
        if key not in LIMITS:
            del holder[key]

    def _add(self, body: dict[str, Any]) -> None:
        field = self._rng.choice(FIELDS)
        values = SMALL if field in LIMITS else ODD
        body[field] = copy.deepcopy(self._rng.choice(values))

    def _wrap(self, body: dict[str, Any]) -> None:
        holder, key = self._place(body)
        value = holder[key]
        holder[key] = self._rng.choice([[value], {"type": value}, {str(key): value}])

    def _repeat(self, body: dict[str, Any]) -> None:
        holder, key = self._place(body)
        if isinstance(holder[key], list):
            holder[key] = holder[key] * self._rng.choice([0, 2, 50])

    def _swap(self, body: dict[str, Any]) -> None:
        (holder, key), (other, name) = self._place(body), self._place(body)
        if key not in LIMITS and name not in LIMITS:
            holder[key], other[name] = copy.deepcopy((other[name], holder[key]))

    def _place(self, body: dict[str, Any]) -> Place:
        """Return any place within, those at the top as likely as all others."""
        places = list(_places(body))
        top = [place for place in places if place[0] is body and place[1] != "model"]
        return self._rng.choice(top if top and self._rng.random() < 0.5 else places)

    def _bytes(self, body: dict[str, Any]) -> bytes:
        encoded = json.dumps(body).encode()
        if self._rng.random() < 0.95:
            return encoded
        at = self._rng.randrange(len(encoded))
        noise = bytes([self._rng.randrange(256)])
        return self._rng.choice(
            [encoded[:at], encoded[:at] + noise + encoded[at + 1 :], encoded + encoded, b"[]", b"5"]
        )

    def _headers(self) -> dict[str, str]:
        if self._rng.random() < 0.97:
            return {"content-type": "application/json"}
        kinds = ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=x"]
        return {"content-type": self._rng.choice(kinds)}


def _places(value: Any) -> Iterator[Place]:
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        yield value, key
        yield from _places(value[key])
