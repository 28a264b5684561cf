"""A request for the rest of an answer: its prompt ends with the answer's beginning.

The tokens of the new prompt must begin with those of the old one; an engine's `/tokenize` tells.
That shows a chat template that writes a finished message in another way than one it opens, and
counts the answer's tokens as the engine will.
"""

from collections.abc import Awaitable, Callable

import msgspec

from gateway.kvcache.prefix import TOKEN_ID_BYTES
from gateway.request.routes import CHAT
from gateway.resume.completion_params import CompletionParams, Unresumable
from gateway.resume.fields import Fields, is_given, raw

Tokenize = Callable[[bytes, int], Awaitable[list[int] | None]]
"""Asks an engine's `/tokenize` with a body whose prompt ends with so many bytes of answer; None
where it has no answer."""
RENDERED = (
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
"""What `/tokenize` takes of a chat request."""
_OTHER_TEMPLATE = "The model's chat template cannot go on with an answer."


class Continuation(msgspec.Struct, frozen=True):
    """What changes in a request, and what its prompt comes to."""

    fields: Fields
    kept_bytes: int
    """Bytes of the answer that are in the prompt; four for each token id."""
    kept_tokens: int | None
    """Tokens of the answer that are in the prompt; None if they cannot be counted."""
    prompt_tokens: int | None = None
    """Tokens of the prompt without them, where known."""


class _Message(msgspec.Struct, frozen=True):
    content: str
    role: str = "assistant"


async def continuation(
    path: str, params: CompletionParams, fields: Fields, kept: str, tokenize: Tokenize
) -> Continuation:
    """The request for what follows upon `kept`.

    Raises:
        Unresumable: the engine would not go on there.
    """
    try:
        if path == CHAT:
            return await _chat(params, fields, kept, tokenize)
        return await _completion(params, fields, kept, tokenize)
    except (msgspec.MsgspecError, ValueError, LookupError, RecursionError):
        raise Unresumable("The prompt cannot be read.") from None


async def _chat(
    params: CompletionParams, fields: Fields, kept: str, tokenize: Tokenize
) -> Continuation:
    messages = msgspec.json.decode(fields["messages"], type=list[msgspec.Raw])
    if params.continue_final_message:
        messages[-1] = raw(_grown(msgspec.json.decode(messages[-1], type=Fields), kept))
    elif params.is_greedy and kept[0].isspace():
        raise Unresumable("Chat templates strip what a message begins with.")
    else:
        messages.append(raw(_Message(kept)))
    changed: Fields = {
        "messages": raw(messages),
        "continue_final_message": raw(True),
        "add_generation_prompt": raw(False),
    }
    size = len(kept.encode())
    before = await tokenize(_picked(fields, RENDERED), 0)
    if before is None:
        return Continuation(changed, size, await _count(fields, kept, tokenize))
    after = await tokenize(_picked(fields | changed, RENDERED), size)
    if after is None or after[: len(before)] != before:
        raise Unresumable(_OTHER_TEMPLATE)
    return Continuation(changed, size, len(after) - len(before), len(before))


def _grown(message: Fields, kept: str) -> Fields:
    """A message with more text at its end."""
    content = msgspec.json.decode(message["content"], type=str | list[Fields])
    if isinstance(content, str):
        return message | {"content": raw(content + kept)}
    for part in reversed(content):
        if "text" in part:
            part["text"] = raw(msgspec.json.decode(part["text"], type=str) + kept)
            return message | {"content": raw(content)}
    raise Unresumable("The last message has no text to go on with.")


async def _completion(
    params: CompletionParams, fields: Fields, kept: str, tokenize: Tokenize
) -> Continuation:
    prompt = msgspec.json.decode(params.prompt, type=str | list[int | str | list[int]])
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        if not prompt or not isinstance(prompt[0], int):
            raise Unresumable("There are several prompts.")
        ids = await tokenize(_text(fields, kept), 0)
        if ids is None:
            raise Unresumable("The engine cannot tell the answer's tokens.")
        grown: Fields = {"prompt": raw([*prompt, *ids])}
        return Continuation(grown, TOKEN_ID_BYTES * len(ids), len(ids), len(prompt))
    size = len(kept.encode())
    changed: Fields = {"prompt": raw(prompt + kept)}
    names = ("model", "prompt", "add_special_tokens")
    before = await tokenize(_picked(fields | {"prompt": raw(prompt)}, names), 0)
    after = await tokenize(_picked(fields | changed, names), size)
    if before is None or after is None:
        return Continuation(changed, size, None)
    kept_tokens: int | None = len(after) - len(before)
    if after[: len(before)] != before:
        if params.is_greedy:
            raise Unresumable("The prompt ends within a word.")
        kept_tokens = await _count(fields, kept, tokenize)
    return Continuation(changed, size, kept_tokens, len(before))


async def _count(fields: Fields, text: str, tokenize: Tokenize) -> int | None:
    ids = await tokenize(_text(fields, text), 0)
    return None if ids is None else len(ids)


def _text(fields: Fields, text: str) -> bytes:
    bare: Fields = {"prompt": raw(text), "add_special_tokens": raw(False)}
    return _picked(fields | bare, ("model", "prompt", "add_special_tokens"))


def _picked(fields: Fields, names: tuple[str, ...]) -> bytes:
    return msgspec.json.encode({name: fields[name] for name in names if is_given(fields, name)})
