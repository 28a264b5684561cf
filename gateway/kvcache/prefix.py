"""Prefix keys of a prompt: a chain of hashes, one for every 256 bytes of its canonical text.

Method: what the engine will render is written out as one canonical text, in the order of rendering,
and hashed block by block: `key[i] = xxh3_64(block[i], seed=key[i - 1])`. Two prompts share their
first n keys exactly when they share their first n blocks, the scope of their caches and everything
that changes how a prompt begins (model, salt, template arguments...). vLLM's block hashes have the
same property; these keys need no tokenizer.

Cost: O(length) up to the end of the text that has keys, without copying the body. Bytes behind it
are counted, never decoded.
"""

import re
from array import array
from collections.abc import Callable, Sequence

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.kvcache.canonical_text import REPLY_START, CanonicalText
from gateway.kvcache.conversation import ConversationWriter
from gateway.kvcache.json_text import (
    MAX_COMMAS,
    decode_string,
    first_byte,
    is_too_costly,
    normal_json,
)
from gateway.kvcache.response_items import ResponseItems
from gateway.kvcache.route_fields import fields_read
from gateway.kvcache.template_arguments import is_given, layout_of, seed_of
from gateway.kvcache.tool_definitions import tools_text
from gateway.request.head import PromptParts, RequestHead
from gateway.request.lax_json import read_bool
from gateway.request.raw_fields import ABSENT
from gateway.telemetry.facts import PromptLayout

KEY_BYTES = 256
"""Bytes of canonical text that a key stands for."""
MAX_KEYS = 8192
"""Keys of a prompt at most, for 2 MiB of text; text beyond that has no keys."""
MAX_TEXT = MAX_KEYS * KEY_BYTES
MAX_IDS_TEXT = 5_000_000
"""Bytes of JSON that hold at least as many token ids as `MAX_KEYS` keys stand for."""
TOKEN_ID_BYTES = 4

_MESSAGES = "/v1/messages"
_NO_TOOLS = (b'"none"', b'{"type":"none"}')
_TRUE = msgspec.Raw(b"true")
_FIRST_ELEMENT = re.compile(rb"\[\s*(.)", re.DOTALL)
_FIRST_STRING = re.compile(rb'\[\s*("(?:[^"\\]++|\\.)*+")', re.DOTALL)
_ids_decoder = msgspec.json.Decoder(list[int])


class Prompt(msgspec.Struct, frozen=True):
    """Prompt of a request, as routing sees it."""

    keys: Sequence[int]
    size: int = 0
    """Bytes of its canonical text, or four for each token id."""
    seed: int = 0
    """Seed of the first key."""
    reply_start: bytes | None = None
    """Canonical text between the last key and the reply; None if no reply can extend the keys."""
    is_token_ids: bool = False
    has_media: bool = False
    """Whether some of it (images, audio) is in the text as a hash only, so that it has more tokens
    than its text shows."""
    key_bytes: int = KEY_BYTES


NO_PROMPT = Prompt(keys=array("Q"))


def prompt_of(
    head: RequestHead,
    model: str = "",
    layout: PromptLayout = PromptLayout(),  # noqa: B008 - it is frozen
    read_tools: Callable[[msgspec.Raw], bytes] = tools_text,
    path: str = "",
    scope: int = 0,
) -> Prompt:
    """Compute the prompt of an inference request; one that cannot be read has no keys.

    `model`: the model or adapter that answers, if the client calls it by another name. `layout`:
    how its engines render conversations. `read_tools`: `tools_text`, or a cache of it. `path`: the
    request's route, if fields that it does not read are to be left out. `scope`: seed of the scope
    of caches that it uses; prompts of different scopes share no keys.

    Never raises: the engine reports what is wrong with a request.
    """
    parts = fields_read(head.prompt, path) if path else head.prompt
    if is_too_costly(_fields(parts)):
        return _without_keys(parts)
    try:
        layout = layout_of(parts, layout)
        seed = seed_of(parts, model or head.model, layout)
        if scope:
            seed = xxh3_64_intdigest(seed.to_bytes(8), scope)
        if is_given(parts.prompt) and not is_given(parts.messages):
            return _completion(parts.prompt, seed)
        if is_given(parts.messages) or is_given(parts.input):
            is_anthropic = path == _MESSAGES
            return _conversation(parts, seed, layout, read_tools, is_anthropic=is_anthropic)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        return _without_keys(parts)
    return NO_PROMPT


def extend(key: int, text: bytes, key_bytes: int = KEY_BYTES) -> "array[int]":
    """Compute the keys that follow `key` when `text` follows its block; whole blocks only."""
    keys: list[int] = []
    append, digest = keys.append, xxh3_64_intdigest  # local names: this runs for all text
    for start in range(0, len(text) - key_bytes + 1, key_bytes):
        key = digest(text[start : start + key_bytes], key)
        append(key)
    return array("Q", keys)


def _without_keys(parts: PromptParts) -> Prompt:
    """A prompt without keys, only with a length."""
    return Prompt(NO_PROMPT.keys, size=sum(map(len, _texts(parts))))


def _texts(parts: PromptParts) -> tuple[msgspec.Raw, ...]:
    return (parts.messages, parts.system, parts.prompt, parts.input, parts.instructions)


def _fields(parts: PromptParts) -> tuple[msgspec.Raw, ...]:
    """All fields that are read for the keys."""
    options = [raw for _, raw in parts.options]
    return (*_texts(parts), parts.tools, *parts.seeds, *options)


def _conversation(
    parts: PromptParts,
    seed: int,
    layout: PromptLayout,
    read_tools: Callable[[msgspec.Raw], bytes],
    *,
    is_anthropic: bool,
) -> Prompt:
    """Prompt of a chat, or what OpenAI calls `input`: text or items, or texts to embed."""
    is_chat = is_given(parts.messages)
    raw = parts.input
    first = b"" if is_chat else _first_byte(raw)
    is_items = first == b"{"
    is_text = first == first_byte(raw) == b'"'
    system = parts.system if is_chat else parts.instructions
    if not (is_chat or is_items or is_text):
        return _completion(raw, seed, MAX_COMMAS)
    has_tools = _renders_tools(parts, has_always=layout.has_tools_always and not is_anthropic)
    tools = read_tools(parts.tools) if has_tools else b""
    text = CanonicalText(layout, tools, MAX_TEXT)
    conversation = ConversationWriter(text, is_anthropic=is_anthropic)
    if is_given(system):
        conversation.add_system(system)
    reply = _reply(parts)
    if is_items:
        items = ResponseItems(text)
        items.add(parts.input)
        reply = b"" if items.is_continued else reply
    elif is_chat:
        conversation.add_messages(parts.messages)
        reply = b"" if conversation.is_continued else reply
    else:
        conversation.add_user(parts.input)
    if text.tool_changes:
        seed = xxh3_64_intdigest(text.tool_changes, seed)
    return _chain(text.finish(), seed, reply=reply, skipped=text.skipped, has_media=text.has_media)


def _renders_tools(parts: PromptParts, *, has_always: bool) -> bool:
    """Whether tools are rendered; `has_always`: even if none may be called."""
    if not is_given(parts.tools):
        return False
    if has_always or not parts.options:
        return True
    choice = normal_json(dict(parts.options).get("tool_choice", ABSENT))
    return choice not in _NO_TOOLS


def _reply(parts: PromptParts) -> bytes | None:
    """Canonical text between a conversation and the reply; None if no reply can follow."""
    options = dict(parts.options)
    if read_bool(options.get("continue_final_message", ABSENT)):
        return b""
    if not read_bool(options.get("add_generation_prompt", _TRUE)):
        return None
    return REPLY_START


def _completion(raw: msgspec.Raw, seed: int, max_ids: int = MAX_IDS_TEXT) -> Prompt:
    """Prompt that is a text, token ids, or a list of either; of a list, the first one counts."""
    first = _first_byte(raw)
    if first == b'"':
        return _text(raw, seed)
    start = bytes(memoryview(raw)[:MAX_IDS_TEXT])
    if first == b"[":
        start = start[start.index(b"[", 1) :]
        start = start[: start.find(b"]") + 1] or start
    if first == b"]":
        return NO_PROMPT
    if not start.endswith(b"]"):
        start = start[: start.rindex(b",")] + b"]"
    if start.count(b",") > max_ids:
        return Prompt(NO_PROMPT.keys, size=len(raw))
    return _token_ids(start, seed)


def _text(raw: msgspec.Raw, seed: int) -> Prompt:
    """Prompt that is a text, or the first text of a list."""
    view = memoryview(raw)
    if first_byte(raw) == b"[" and (match := _FIRST_STRING.match(view)):
        view = view[match.start(1) : match.end(1)]
    text = decode_string(view, MAX_TEXT + 1).encode()
    return _chain(text, seed, skipped=max(0, len(view) - MAX_TEXT - 2))


def _token_ids(raw: bytes, seed: int) -> Prompt:
    ids = array("I", _ids_decoder.decode(raw)).tobytes()
    return _chain(ids, ~seed & 0xFFFF_FFFF_FFFF_FFFF, is_token_ids=True)


def _chain(
    text: bytes,
    seed: int,
    *,
    reply: bytes | None = b"",
    skipped: int = 0,
    is_token_ids: bool = False,
    has_media: bool = False,
) -> Prompt:
    keys = extend(seed, text[:MAX_TEXT])
    can_follow = reply is not None and not skipped and len(keys) < MAX_KEYS
    return Prompt(
        keys,
        size=len(text) + skipped,
        seed=seed,
        reply_start=text[len(keys) * KEY_BYTES :] + (reply or b"") if can_follow else None,
        is_token_ids=is_token_ids,
        has_media=has_media,
    )


def _first_byte(raw: msgspec.Raw) -> bytes:
    """First byte of a JSON value, or of the first element if it is a list."""
    match = _FIRST_ELEMENT.match(memoryview(raw))
    return bytes(match[1]) if match else first_byte(raw)
