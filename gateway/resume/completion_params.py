"""Parameters of a completion request that decide whether and how its stream can be resumed."""

from collections.abc import Iterator

import msgspec

from gateway.request.routes import CHAT, COMPLETIONS
from gateway.resume.raw_json import RawObject
from gateway.upstream.completion_chunk import NULL

DEFAULT_COMPLETION_TOKENS = 16
"""Token limit of a text completion whose request sets none."""
GREEDY_BELOW = 1e-5
"""Temperatures that vLLM treats as 0."""

WHOLE_ANSWER_FIELDS = frozenset(
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
_UNUSED = frozenset({b"", b"null", b"false", b"0", b"0.0", b'""', b"[]", b"{}"})
"""Values that mean that a field is not used."""


class Unresumable(Exception):
    """The stream cannot be resumed; the message says why."""


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _ResponseFormat(msgspec.Struct):
    type: str | None = None


class CompletionParams(msgspec.Struct, kw_only=True):
    """Body of a completion request."""

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
    response_format: _ResponseFormat | None = None
    tool_choice: msgspec.Raw = NULL
    stop: msgspec.Raw = NULL
    include_stop_str_in_output: bool | None = None
    include_reasoning: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    stream_options: _StreamOptions | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether each token follows from the tokens before it, without chance."""
        is_zero = self.temperature is not None and self.temperature < GREEDY_BELOW
        return is_zero or self.top_k == 1

    @property
    def is_deterministic(self) -> bool:
        """Whether another engine generates the same answer."""
        return self.is_greedy or self.seed is not None

    @property
    def wants_usage(self) -> bool:
        """Whether the stream must end with a usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def parse_params(body: bytes) -> tuple[CompletionParams, RawObject]:
    """Parse a body; return its parameters, and all its fields as they were written.

    As lenient as engines, which have accepted the body: numbers may be strings.

    Raises:
        Unresumable: the body cannot be parsed.
    """
    try:
        params = msgspec.json.decode(body, type=CompletionParams, strict=False)
        return params, msgspec.json.decode(body, type=RawObject)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Unresumable("The request cannot be read.") from None


def token_limits(
    path: str, params: CompletionParams, fields: RawObject, tokens: int
) -> dict[str, int]:
    """Return the fields that limit the tokens of an answer, the one that applies first.

    `tokens`: tokens that the answer already has. If these are more than the default limit of a text
    completion, the engine has another default.
    """
    limits = {"max_completion_tokens": params.max_completion_tokens} if path == CHAT else {}
    limits["max_tokens"] = params.max_tokens
    if path == COMPLETIONS and "max_tokens" not in fields and tokens <= DEFAULT_COMPLETION_TOKENS:
        limits["max_tokens"] = DEFAULT_COMPLETION_TOKENS
    return {name: limit for name, limit in limits.items() if limit is not None}


def has_stop_strings(params: CompletionParams) -> bool:
    """Whether a string may end the answer, whose tokens are then no part of its text."""
    return bytes(params.stop) not in _UNUSED


def check_continuable(params: CompletionParams, fields: RawObject) -> None:
    """Check that the end of the answer does not depend on how it began.

    Raises:
        Unresumable: it does; the message names the field that causes it.
    """
    name = next(_whole_answer_fields(params, fields), None)
    if name is not None:
        raise Unresumable(f"`{name}` concerns the answer as a whole.")


def choice_count(path: str, params: CompletionParams) -> int:
    """Return the number of choices of the answer."""
    prompts = 1
    if path == COMPLETIONS and bytes(params.prompt)[:1] == b"[":
        prompt_list = msgspec.json.decode(params.prompt, type=list[msgspec.Raw])
        is_several = bool(prompt_list) and bytes(prompt_list[0])[:1] in (b'"', b"[")
        prompts = len(prompt_list) if is_several else 1
    return prompts * (params.n or 1)


def _whole_answer_fields(params: CompletionParams, fields: RawObject) -> Iterator[str]:
    """Yield the fields that make the end of an answer depend on how it began."""
    for name, value in fields.items():
        if (name in WHOLE_ANSWER_FIELDS or name.startswith("guided_")) and bytes(
            value
        ) not in _UNUSED:
            yield name
    has_format = params.response_format is not None
    conditions = {
        "n": (params.n or 1) > 1,
        "best_of": (params.best_of or 1) > 1,
        "seed": params.seed is not None and not params.is_greedy,
        "logprobs": bytes(params.logprobs) not in (b"null", b"false"),
        "response_format": has_format and params.response_format != _ResponseFormat("text"),
        "tool_choice": bytes(params.tool_choice) not in (b"null", b'"auto"', b'"none"'),
        # Otherwise vLLM holds back text that may become a stop string: the sent text has none.
        "include_stop_str_in_output": bool(params.include_stop_str_in_output)
        and has_stop_strings(params),
        "include_reasoning": params.include_reasoning is False,
        "add_generation_prompt": params.add_generation_prompt is False
        and not params.continue_final_message,
    }
    yield from (name for name, applies in conditions.items() if applies)
