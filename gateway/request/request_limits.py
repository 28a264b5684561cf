"""Check of a request against its model's limits, before any engine sees it.

Cost: about 1 µs for a request without any of the limited fields, and a hash of its tools. Lengths
are compared first; what is short enough is not parsed, and what is parsed is bounded.
"""

from collections.abc import Callable

import msgspec

from gateway.config.limits import Limits
from gateway.errors.request import ContextExceeded, LimitExceeded
from gateway.request.head import RequestHead
from gateway.request.lax_json import read_int
from gateway.request.message_count import count_parts
from gateway.request.prompt_size import too_long
from gateway.request.raw_fields import ABSENT, RawFields
from gateway.request.schema_limits import check_count
from gateway.request.sequences import answers, count_items
from gateway.request.structured_output import check_bytes, check_structured_output
from gateway.request.tool_limits import check_tools

MEASURING_FACTOR = 4
"""Multiple of a model's context that routes take which only turn a text into tokens, or back."""
MEASURING_ROUTES = frozenset({"/tokenize", "/detokenize"})
MIN_PROMPT_BYTES = 1 << 20
"""A prompt of this size is left to the engine: clients rely on it to truncate texts, or to say how
long they are."""
MIN_PROMPT_TOKENS = 1 << 17
"""The same for a list of token ids."""
SMALL_CONVERSATION = 1 << 19
"""Bytes of a request whose messages are not counted."""


def check_limits(
    head: RequestHead,
    limits: Limits,
    check_tools: Callable[[RawFields, Limits], None] = check_tools,
) -> None:
    """Check the fields of a request that have limits of their own, and all of them together.

    `check_tools`: the function of that name, or one that knows tools from earlier requests.

    Raises:
        LimitExceeded: a field asks for more than the model's entry allows.
    """
    if head.prompts > limits.prompts:
        raise LimitExceeded.of(
            _prompt_field(head.fields), head.prompts, "items", limits.prompts, "prompts"
        )
    if head.size > SMALL_CONVERSATION:
        _check_messages(head.fields, limits)
    if not head.fields.is_plain:
        _check_numbers(head.fields, limits)
        _check_lists(head.fields, limits)
        if head.fields.tools is not ABSENT:
            check_tools(head.fields, limits)
        check_structured_output(head.fields, limits)
    if head.size > limits.parameter_bytes:
        _check_parameters(head, limits)


def may_exceed_context(head: RequestHead) -> bool:
    """Whether a request is large enough for `check_context` to have anything to check."""
    return head.size > MIN_PROMPT_BYTES


def check_context(head: RequestHead, path: str, limits: Limits, max_model_len: int) -> None:
    """Check that each prompt of a request may fit the model's context, whatever its tokens are.

    Raises:
        ContextExceeded: one cannot.
    """
    factor = MEASURING_FACTOR if path in MEASURING_ROUTES else 1
    if not (may_exceed_context(head) and max_model_len):
        return
    most_tokens = max(MIN_PROMPT_TOKENS, factor * max_model_len)
    most_bytes = max(MIN_PROMPT_BYTES, factor * max_model_len * limits.prompt_chars_per_token)
    if size := too_long(head.fields, most_bytes, most_tokens):
        raise ContextExceeded(
            f"This model's maximum context length is {max_model_len:,} tokens. However, your"
            f" `{size.field}` has {size.found:,} {size.unit}, and at most {size.allowed:,} are"
            " allowed (`limits.prompt_chars_per_token` in the model's entry).",
            size.field,
        )


def _check_parameters(head: RequestHead, limits: Limits) -> None:
    fields = head.fields
    others = sum(map(len, fields.prompts.values())) + len(fields.tools)
    found = head.size - others
    if found > limits.parameter_bytes:
        raise LimitExceeded(
            f"The fields of your request, without its prompt and tools, have {found:,} bytes, and"
            f" at most {limits.parameter_bytes:,} are allowed (`limits.parameter_bytes` in the"
            " model's entry).",
            fields.largest_parameter(found // 2),
        )


def _check_messages(fields: RawFields, limits: Limits) -> None:
    for name in ("messages", "input", "system", "previous_input_messages"):
        raw: msgspec.Raw = getattr(fields, name)
        if raw is not ABSENT:
            found = count_parts(raw, limits.messages)
            check_count(name, found, limits.messages, "messages", "messages and parts")


def _check_numbers(fields: RawFields, limits: Limits) -> None:
    if fields.n is not ABSENT:
        _check_number("n", answers(fields), limits.n, "n")
    if fields.best_of is not ABSENT:
        _check_number("best_of", read_int(fields.best_of) or 1, limits.n, "n")
    for name in ("logprobs", "top_logprobs", "prompt_logprobs"):
        raw = getattr(fields, name)
        if raw is not ABSENT:
            _check_number(name, read_int(raw) or 0, limits.logprobs, "logprobs")


def _check_number(field: str, found: int, allowed: int, limit: str) -> None:
    if found > allowed:
        raise LimitExceeded(
            f"`{field}` is {found:,}, and at most {allowed:,} is allowed (`limits.{limit}` in the"
            " model's entry).",
            field,
        )


def _check_lists(fields: RawFields, limits: Limits) -> None:
    for name in ("bad_words", "stop", "stop_sequences"):
        raw: msgspec.Raw = getattr(fields, name)
        if raw is not ABSENT:
            check_bytes(name, raw, limits.words_bytes, "words_bytes")
            _check_commas(name, raw, limits.words, "words")
    for name in ("logit_bias", "allowed_token_ids", "stop_token_ids", "logprob_token_ids"):
        raw = getattr(fields, name)
        if raw is not ABSENT:
            _check_commas(name, raw, limits.token_ids, "token_ids")


def _check_commas(field: str, raw: msgspec.Raw, allowed: int, limit: str) -> None:
    """Check the number of items of a list or an object, which are read only if they are many."""
    most = bytes(raw).count(b",") + 1
    if most > allowed:
        found = count_items(raw) if bytes(raw)[:1] == b"[" else most
        check_count(field, found, allowed, limit)


def _prompt_field(fields: RawFields) -> str:
    """Name of the field with the request's prompts."""
    prompts = fields.prompts
    return max(prompts, key=lambda name: count_items(prompts[name]), default="prompt")
