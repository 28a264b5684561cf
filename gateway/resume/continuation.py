"""Builds the request for the rest of an answer: its prompt ends with the answer's beginning.

The tokens of the new prompt must begin with the tokens of the old one, which an engine's
`/tokenize` shows. This detects chat templates that render a finished message differently from one
that they open, and counts the answer's tokens as the engine will.
"""

from collections.abc import Awaitable, Callable

import msgspec

from gateway.kvcache.prefix import TOKEN_ID_BYTES
from gateway.request.routes import CHAT
from gateway.resume.completion_params import CompletionParams, Unresumable
from gateway.resume.raw_json import RawObject, has_value, to_raw

Tokenize = Callable[[bytes, int], Awaitable[list[int] | None]]
"""Calls an engine's `/tokenize` with a body and the bytes of answer at the end of its prompt;
returns None if the engine cannot tell."""
CHAT_TOKENIZE_FIELDS = (
    "model",
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
    "media_io_kwargs",
    "mm_processor_kwargs",
)
"""Fields of a chat request that `/tokenize` accepts."""
_TEMPLATE_MISMATCH = "The model's chat template cannot continue an answer."


class Continuation(msgspec.Struct, frozen=True):
    """Changed fields of a request, and the size of its new prompt."""

    fields: RawObject
    kept_bytes: int
    """Bytes of the answer in the prompt; four for each token id."""
    kept_tokens: int | None
    """Tokens of the answer in the prompt; None if they cannot be counted."""
    prompt_tokens: int | None = None
    """Tokens of the prompt without these, if known."""


class _AssistantMessage(msgspec.Struct, frozen=True):
    content: str
    role: str = "assistant"


async def build_continuation(
    path: str, params: CompletionParams, fields: RawObject, kept_text: str, tokenize: Tokenize
) -> Continuation:
    """Build the request for the rest of an answer that begins with `kept_text`.

    Raises:
        Unresumable: an engine would not continue there.
    """
    try:
        if path == CHAT:
            return await _continue_chat(params, fields, kept_text, tokenize)
        return await _continue_text(params, fields, kept_text, tokenize)
    except (msgspec.MsgspecError, ValueError, LookupError, RecursionError):
        raise Unresumable("The prompt cannot be read.") from None


async def _continue_chat(
    params: CompletionParams, fields: RawObject, kept_text: str, tokenize: Tokenize
) -> Continuation:
    messages = msgspec.json.decode(fields["messages"], type=list[msgspec.Raw])
    if params.continue_final_message:
        messages[-1] = to_raw(
            _extended(msgspec.json.decode(messages[-1], type=RawObject), kept_text)
        )
    elif params.is_greedy and kept_text[0].isspace():
        raise Unresumable("Chat templates strip white space at the start of a message.")
    else:
        messages.append(to_raw(_AssistantMessage(kept_text)))
    changed: RawObject = {
        "messages": to_raw(messages),
        "continue_final_message": to_raw(True),
        "add_generation_prompt": to_raw(False),
    }
    size = len(kept_text.encode())
    before = await tokenize(_select(fields, CHAT_TOKENIZE_FIELDS), 0)
    if before is None:
        return Continuation(changed, size, await _count_tokens(fields, kept_text, tokenize))
    after = await tokenize(_select(fields | changed, CHAT_TOKENIZE_FIELDS), size)
    if after is None or after[: len(before)] != before:
        raise Unresumable(_TEMPLATE_MISMATCH)
    return Continuation(changed, size, len(after) - len(before), len(before))


def _extended(message: RawObject, kept_text: str) -> RawObject:
    """Return a message with text appended."""
    content = msgspec.json.decode(message["content"], type=str | list[RawObject])
    if isinstance(content, str):
        return message | {"content": to_raw(content + kept_text)}
    for part in reversed(content):
        if "text" in part:
            part["text"] = to_raw(msgspec.json.decode(part["text"], type=str) + kept_text)
            return message | {"content": to_raw(content)}
    raise Unresumable("The last message has no text to continue.")


async def _continue_text(
    params: CompletionParams, fields: RawObject, kept_text: str, tokenize: Tokenize
) -> Continuation:
    prompt = msgspec.json.decode(params.prompt, type=str | list[int | str | list[int]])
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        if not prompt or not isinstance(prompt[0], int):
            raise Unresumable("The request does not have exactly one prompt.")
        ids = await tokenize(_text_body(fields, kept_text), 0)
        if ids is None:
            raise Unresumable("The engine cannot tokenize the answer.")
        extended: RawObject = {"prompt": to_raw([*prompt, *ids])}
        return Continuation(extended, TOKEN_ID_BYTES * len(ids), len(ids), len(prompt))
    size = len(kept_text.encode())
    changed: RawObject = {"prompt": to_raw(prompt + kept_text)}
    names = ("model", "prompt", "add_special_tokens")
    before = await tokenize(_select(fields | {"prompt": to_raw(prompt)}, names), 0)
    after = await tokenize(_select(fields | changed, names), size)
    if before is None or after is None:
        return Continuation(changed, size, None)
    kept_tokens: int | None = len(after) - len(before)
    if after[: len(before)] != before:
        if params.is_greedy:
            raise Unresumable("The prompt ends within a word.")
        kept_tokens = await _count_tokens(fields, kept_text, tokenize)
    return Continuation(changed, size, kept_tokens, len(before))


async def _count_tokens(fields: RawObject, text: str, tokenize: Tokenize) -> int | None:
    ids = await tokenize(_text_body(fields, text), 0)
    return None if ids is None else len(ids)


def _text_body(fields: RawObject, text: str) -> bytes:
    bare: RawObject = {"prompt": to_raw(text), "add_special_tokens": to_raw(False)}
    return _select(fields | bare, ("model", "prompt", "add_special_tokens"))


def _select(fields: RawObject, names: tuple[str, ...]) -> bytes:
    return msgspec.json.encode({name: fields[name] for name in names if has_value(fields, name)})
