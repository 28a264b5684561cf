"""What a request asks for, as far as carrying on its answer depends on it."""

from collections.abc import Iterator

import msgspec

from gateway.request.routes import CHAT, COMPLETIONS
from gateway.resume.fields import NULL, Fields

DEFAULT_COMPLETION_TOKENS = 16
"""Tokens of a text completion whose request sets no limit."""
GREEDY_BELOW = 1e-5
"""Temperatures that vLLM takes for 0."""

WHOLE = frozenset(
    {
        "bad_words",
        "echo",
        "ec_transfer_params",
        "frequency_penalty",
        "function_call",
        "functions",
        "kv_transfer_params",
        "logits_processors",
        "modalities",
        "presence_penalty",
        "prompt_embeds",
        "prompt_logprobs",
        "repetition_detection",
        "return_token_ids",
        "structured_outputs",
        "suffix",
        "thinking_token_budget",
        "truncate_prompt_tokens",
        "use_beam_search",
        "vllm_xargs",
    }
)
"""Fields that tie an answer's end to its beginning, which an engine would take for prompt."""
_NOTHING = frozenset({b"", b"null", b"false", b"0", b"0.0", b'""', b"[]", b"{}"})
"""All the ways of not using a field."""


class Unresumable(Exception):
    """The answer cannot be carried on; the message says why."""


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Format(msgspec.Struct):
    type: str | None = None


class CompletionParams(msgspec.Struct, kw_only=True):
    """The body of a request for a completion."""

    prompt: msgspec.Raw = NULL
    n: int | None = None
    best_of: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int | None = None
    logprobs: msgspec.Raw = NULL
    response_format: _Format | None = None
    tool_choice: msgspec.Raw = NULL
    stop: msgspec.Raw = NULL
    include_stop_str_in_output: bool | None = None
    include_reasoning: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    stream_options: _StreamOptions | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether every token follows from those before it."""
        is_cold = self.temperature is not None and self.temperature < GREEDY_BELOW
        return is_cold or self.top_k == 1

    @property
    def is_repeatable(self) -> bool:
        """Whether another engine gives the same answer."""
        return self.is_greedy or self.seed is not None

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with a usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def read_params(body: bytes) -> tuple[CompletionParams, Fields]:
    """What a body asks for, and all its fields as they were written.

    Lenient as engines are, for they have accepted it: numbers may be strings.

    Raises:
        Unresumable: it cannot be read.
    """
    try:
        params = msgspec.json.decode(body, type=CompletionParams, strict=False)
        return params, msgspec.json.decode(body, type=Fields)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Unresumable("The request cannot be read.") from None


def limits(path: str, params: CompletionParams, fields: Fields, tokens: int) -> dict[str, int]:
    """The fields that limit the tokens of an answer, the one that counts first.

    `tokens`: what the answer has already. An engine that lets it have more than the default for a
    text completion has another one.
    """
    named = {"max_completion_tokens": params.max_completion_tokens} if path == CHAT else {}
    named["max_tokens"] = params.max_tokens
    if path == COMPLETIONS and "max_tokens" not in fields and tokens <= DEFAULT_COMPLETION_TOKENS:
        named["max_tokens"] = DEFAULT_COMPLETION_TOKENS
    return {name: limit for name, limit in named.items() if limit is not None}


def check_continuable(params: CompletionParams, fields: Fields) -> None:
    """Refuse a request whose answer's end depends on how it began.

    Raises:
        Unresumable: the message names the field because of which it does.
    """
    name = next(_ties(params, fields), None)
    if name is not None:
        raise Unresumable(f"`{name}` concerns the answer as a whole.")


def choices(path: str, params: CompletionParams) -> int:
    """How many choices the answer has."""
    prompts = 1
    if path == COMPLETIONS and bytes(params.prompt)[:1] == b"[":
        listed = msgspec.json.decode(params.prompt, type=list[msgspec.Raw])
        is_several = bool(listed) and bytes(listed[0])[:1] in (b'"', b"[")
        prompts = len(listed) if is_several else 1
    return prompts * (params.n or 1)


def _ties(params: CompletionParams, fields: Fields) -> Iterator[str]:
    """The fields because of which an answer's end depends on how it began."""
    for name, value in fields.items():
        if (name in WHOLE or name.startswith("guided_")) and bytes(value) not in _NOTHING:
            yield name
    has_format = params.response_format is not None
    conditions = {
        "n": (params.n or 1) > 1,
        "best_of": (params.best_of or 1) > 1,
        "seed": params.seed is not None and not params.is_greedy,
        "logprobs": bytes(params.logprobs) not in (b"null", b"false"),
        "response_format": has_format and params.response_format != _Format("text"),
        "tool_choice": bytes(params.tool_choice) not in (b"null", b'"auto"', b'"none"'),
        # Otherwise vLLM holds back what may become a stop string: what was sent has none in it.
        "include_stop_str_in_output": bool(params.include_stop_str_in_output)
        and bytes(params.stop) not in _NOTHING,
        "include_reasoning": params.include_reasoning is False,
        "add_generation_prompt": params.add_generation_prompt is False
        and not params.continue_final_message,
    }
    yield from (name for name, is_tie in conditions.items() if is_tie)
