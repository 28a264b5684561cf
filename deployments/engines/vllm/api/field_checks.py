"""Checks of the fields that OpenAI's API defines, before vLLM validates a request.

vLLM converts what it can (`"stream": "yes"` is a stream for it) and ignores what it does not know.
Fields that it defines itself are left to it, and so are values that only OpenAI refuses: more than
four stop strings, or five log-probabilities of a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.engines.vllm.api.refusals import (
    check_list,
    check_object,
    check_value,
    empty_array,
    invalid_type,
    missing,
    out_of_bounds,
    unsupported,
)
from deployments.engines.vllm.api.refused_request import RefusedRequest

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Range:
    """Values that a field of numbers may have."""

    least: float | None = None
    most: float | None = None
    is_integer: bool = False
    also: tuple[int, ...] = ()
    """Values of vLLM's own."""

    def check(self, param: str, value: Any) -> None:  # noqa: ANN401 - JSON
        """Refuse what is no such number."""
        kinds = int if self.is_integer else int | float
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise invalid_type(param, "an integer" if self.is_integer else "a decimal", value)
        if value in self.also:
            return
        if self.least is not None and value < self.least:
            raise out_of_bounds(
                param, self.least, value, is_above=False, is_integer=self.is_integer
            )
        if self.most is not None and value > self.most:
            raise out_of_bounds(param, self.most, value, is_above=True, is_integer=self.is_integer)


SAMPLING: Mapping[str, Range] = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "n": Range(1, None, is_integer=True),
    "seed": Range(None, None, is_integer=True),
}
CHAT = {
    **SAMPLING,
    "max_tokens": Range(1, None, is_integer=True),
    "max_completion_tokens": Range(1, None, is_integer=True),
    "top_logprobs": Range(0, None, is_integer=True, also=(-1,)),
}
TEXT = {
    **SAMPLING,
    "max_tokens": Range(0, None, is_integer=True),
    "logprobs": Range(0, None, is_integer=True, also=(-1,)),
    "best_of": Range(1, None, is_integer=True),
}
_BOOLEANS = ("stream", "echo", "parallel_tool_calls", "store")
_OBJECTS = ("stream_options", "logit_bias", "response_format", "structured_outputs", "metadata")
_STRINGS = ("user", "suffix", "reasoning_effort", "safety_identifier", "prompt_cache_key")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_FORMATS = ("text", "json_object", "json_schema", "structural_tag")


def check_completion(body: Body, ranges: Mapping[str, Range]) -> None:
    """Refuse fields of a chat or text completion that OpenAI would refuse.

    Raises:
        RefusedRequest: a field has a wrong type or value.
    """
    for name, allowed in ranges.items():
        if body.get(name) is not None:
            allowed.check(name, body[name])
    _check_types(body)
    check_stop(body.get("stop"))
    if body.get("stream_options") and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise RefusedRequest(message, param="stream_options", code="invalid_value")
    for token in body.get("logit_bias") or {}:
        if not token.isdecimal():
            message = f"Invalid key in 'logit_bias': {token!r}. Keys are ids of tokens."
            raise RefusedRequest(message, param="logit_bias", code="invalid_value")
    if body.get("reasoning_effort") is not None:
        check_value("reasoning_effort", body["reasoning_effort"], EFFORTS)
    if body.get("response_format") is not None:
        _check_format(body["response_format"])


def check_chat_features(body: Body) -> None:
    """Refuse features of OpenAI's chats that no engine here has.

    Raises:
        RefusedRequest: one of them is asked for.
    """
    modalities = body.get("modalities")
    if modalities is not None:
        check_list("modalities", modalities)
        if any(each != "text" for each in modalities):
            raise unsupported("modalities", "Answers are text.")
    for name, reason in {
        "audio": "Answers are text.",
        "prediction": "Predicted outputs are not available.",
        "web_search_options": "Searching the web is not available.",
    }.items():
        if body.get(name) is not None:
            raise unsupported(name, reason)
    if body.get("logprobs") is not None and not isinstance(body["logprobs"], bool):
        raise invalid_type("logprobs", "a boolean", body["logprobs"])


def check_stop(stop: Any) -> None:  # noqa: ANN401 - JSON
    """Refuse what are no stop strings. vLLM takes more than OpenAI's four."""
    if stop is None or isinstance(stop, str):
        return
    if not isinstance(stop, list) or not all(isinstance(each, str) for each in stop):
        raise invalid_type("stop", "a string or an array of strings", stop)


def _check_types(body: Body) -> None:
    for name in _BOOLEANS:
        if not isinstance(body.get(name), bool | None):
            raise invalid_type(name, "a boolean", body[name])
    for name in _OBJECTS:
        if body.get(name) is not None:
            check_object(name, body[name])
    for name in _STRINGS:
        if not isinstance(body.get(name), str | None):
            raise invalid_type(name, "a string", body[name])


def _check_format(form: Body) -> None:
    check_value("response_format.type", form.get("type"), _FORMATS)
    if form["type"] != "json_schema":
        return
    param = "response_format.json_schema"
    if form.get("json_schema") is None:
        raise missing(param)
    check_object(param, form["json_schema"])
    if not isinstance(form["json_schema"].get("name"), str):
        raise missing(f"{param}.name")
    if form["json_schema"].get("schema") is not None:
        check_object(f"{param}.schema", form["json_schema"]["schema"])


def check_best_of(body: Body) -> None:
    """Refuse to try more answers than are wanted, or fewer."""
    best_of, n = body.get("best_of"), body.get("n") or 1
    if best_of is None or best_of == n:
        return
    if best_of < n:
        message = f"'best_of' must be at least 'n' ({n})."
        raise RefusedRequest(message, param="best_of", code="invalid_value")
    raise unsupported("best_of", "Ask for 'n' answers and choose among them.")


def most(param: str, value: int, allowed: int) -> None:
    """Refuse an integer above a maximum that depends on the engine."""
    Range(None, allowed, is_integer=True).check(param, value)


def non_empty(param: str, value: Sequence[Any]) -> None:
    """Refuse an empty array."""
    if not value:
        raise empty_array(param)
