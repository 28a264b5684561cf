"""Answers and events validated strictly against the types of OpenAI's and Anthropic's SDKs.

Pydantic's strict mode refuses what it would convert otherwise, such as a number for a string. The
SDKs' types allow unknown fields and null wherever a field may be absent; the APIs do not, so both
are looked for here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import anthropic.types
import openai.types.chat
import openai.types.responses
from anthropic.pagination import SyncPage as ClaudePage
from openai.pagination import SyncPage
from openai.types.shared import ErrorObject
from pydantic import BaseModel, TypeAdapter, ValidationError

NOT_NULLABLE = frozenset(
    {
        *("annotations", "function_call", "tool_calls", "completion_tokens_details", "namespace"),
        *("prompt_tokens_details", "input_tokens_details", "output_tokens_details", "user"),
        *("defer_loading", "system_fingerprint", "tools", "metadata", "text", "top_logprobs"),
    }
)
"""Fields that may be absent, but must not be null in an answer."""
VLLM_EXTRAS = frozenset(
    {
        *("stop_reason", "token_ids", "routed_experts", "prompt_logprobs", "prompt_token_ids"),
        *("prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics"),
    }
)
"""Fields of vLLM that only those get who ask for them, where the API has none of the name."""


class ErrorEnvelope(BaseModel):
    """OpenAI's error answer."""

    error: ErrorObject


class StreamPing(BaseModel):
    """A sign of life in Anthropic's streams."""

    type: Literal["ping"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The types of a route's whole answer and of one event of its stream."""

    answer: Any
    event: Any = None
    extras: frozenset[str] = frozenset()


CARD = frozenset(
    {
        *("state", "reason", "replicas", "replica_states", "max_model_len", "parent"),
        *("loaded_replicas", "stands_for"),
    }
)
SHAPES: Mapping[str, Shape] = {
    "chat": Shape(
        openai.types.chat.ChatCompletion,
        openai.types.chat.ChatCompletionChunk,
        frozenset({"reasoning", "reasoning_content"}),
    ),
    "completion": Shape(
        openai.types.Completion, openai.types.Completion, frozenset({"service_tier"})
    ),
    "embeddings": Shape(openai.types.CreateEmbeddingResponse),
    "response": Shape(
        openai.types.responses.Response,
        openai.types.responses.ResponseStreamEvent,
        frozenset({"store", "presence_penalty", "frequency_penalty", "name"}),
    ),
    "input_tokens": Shape(openai.types.responses.InputTokenCountResponse),
    "model": Shape(openai.types.Model, extras=CARD),
    "models": Shape(SyncPage[openai.types.Model], extras=CARD),
    "message": Shape(anthropic.types.Message, anthropic.types.RawMessageStreamEvent | StreamPing),
    "count": Shape(anthropic.types.MessageTokensCount),
    "claude_model": Shape(anthropic.types.ModelInfo, extras=CARD),
    "claude_models": Shape(ClaudePage[anthropic.types.ModelInfo], extras=CARD),
    "error": Shape(ErrorEnvelope),
    "claude_error": Shape(anthropic.types.ErrorResponse),
}
"""Shapes by the name that the table of requests has for them."""


def deviations(value: object, type_: Any, extras: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong with `value` as an instance of an SDK's type, each with its path."""
    wanted = _member(type_, value)
    if wanted is openai.types.Completion:
        value = _with_endings(value)
    try:
        parsed = _adapter(wanted).validate_json(_adapter(object).dump_json(value), strict=True)
    except ValidationError as error:
        return [f"{_path(e['loc'])}: {e['msg']}" for e in error.errors()][:3]
    unknown = [
        f"{path}: no such field" for path in _unknown(parsed, "") if _name(path) not in extras
    ]
    return unknown + list(_nulls(value, ""))


def _with_endings(value: Any) -> object:
    """A text completion without the `finish_reason: null` of a chunk: OpenAI sends that, too."""
    try:
        choices = [
            {**choice, "finish_reason": choice["finish_reason"] or "stop"}
            for choice in value["choices"]
        ]
    except (KeyError, TypeError):
        return value
    return {**value, "choices": choices}


@cache
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def _member(type_: Any, value: object) -> Any:
    """The member of a union whose `type` is that of `value`, for errors that name one field."""
    kind = value.get("type") if isinstance(value, dict) else None
    for member in _members(type_):
        field = getattr(member, "model_fields", {}).get("type")
        if field is not None and kind in get_args(field.annotation):
            return member
    return type_


def _members(type_: Any) -> Iterator[Any]:
    for member in get_args(type_):
        yield member
        if not isinstance(member, type):
            yield from _members(member)


def _unknown(value: object, path: str) -> Iterator[str]:
    """Paths of fields that the SDK's types do not know."""
    if isinstance(value, BaseModel):
        yield from (f"{path}.{name}" for name in value.model_extra or ())
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from _unknown(each, f"{path}[{i}]")


def _nulls(value: object, path: str) -> Iterator[str]:
    """Paths of nulls that the API does not allow."""
    if isinstance(value, dict):
        for name, each in value.items():
            if each is None and name in NOT_NULLABLE:
                yield f"{path}.{name}: null"
            elif name not in {"parameters", "schema", "input_schema", "input"}:
                yield from _nulls(each, f"{path}.{name}")
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from _nulls(each, f"{path}[{i}]")


def _name(path: str) -> str:
    return path.rpartition(".")[2]


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)
