"""Prefix keys of a prompt: a chain of hashes, one for every 256 bytes of its canonical text.

Method: what the client sent is written out as one canonical text in the order in which a chat
template renders it, and hashed block by block: `key[i] = xxh3_64(block[i], seed=key[i - 1])`. Two
prompts share their first n keys exactly when they share their first n blocks and everything that
changes how a prompt begins (model, salt, tools, template arguments...). vLLM's block hashes have
the same property; these keys need no tokenizer.

Cost: O(length), without copying the body.
"""

import re
from array import array
from collections.abc import Sequence

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.kvcache.canonical_text import (
    HASH_MARK,
    REPLY_START,
    encode,
    is_given,
    message_text,
    messages_text,
    tools_text,
)
from gateway.request.head import ABSENT, PromptParts, RequestHead

KEY_BYTES = 256
"""Bytes of canonical text that a key stands for."""
MAX_KEYS = 8192
"""Keys of a prompt at most, for 2 MiB of text; text beyond that has no keys."""
MAX_COMMAS = 100_000
"""Commas in JSON that is parsed; megabytes of tiny elements would block the event loop."""
MAX_IDS_TEXT = 5_000_000
"""Bytes of JSON that hold at least as many token ids as `MAX_KEYS` keys stand for."""
TOKEN_ID_BYTES = 4

_FIRST_ELEMENT = re.compile(rb"\[\s*(.)", re.DOTALL)
_string_decoder = msgspec.json.Decoder(str)
_strings_decoder = msgspec.json.Decoder(list[str])
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


def prompt_of(head: RequestHead, model: str = "") -> Prompt:
    """Compute the prompt of an inference request; one that cannot be read has no keys.

    `model`: the model or adapter that answers, if the client calls it by another name. Never
    raises: the engine reports what is wrong with a request.
    """
    try:
        return _read(head, model)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        return _without_keys(head.prompt)


def extend(key: int, text: bytes, key_bytes: int = KEY_BYTES) -> "array[int]":
    """Compute the keys that follow `key` when `text` follows its block; whole blocks only."""
    keys = array("Q")
    for start in range(0, len(text) - key_bytes + 1, key_bytes):
        key = xxh3_64_intdigest(text[start : start + key_bytes], key)
        keys.append(key)
    return keys


def _chain(text: bytes, seed: int, *, reply: bytes = b"", is_token_ids: bool = False) -> Prompt:
    keys = extend(seed, text[: MAX_KEYS * KEY_BYTES])
    return Prompt(
        keys,
        size=len(text),
        seed=seed,
        reply_start=text[len(keys) * KEY_BYTES :] + reply if len(keys) < MAX_KEYS else None,
        is_token_ids=is_token_ids,
        has_media=not is_token_ids and HASH_MARK in text,
    )


def _read(head: RequestHead, model: str) -> Prompt:
    parts = head.prompt
    if any(map(_has_too_many_elements, (parts.messages, parts.system, parts.input))):
        return _without_keys(parts)
    seeds = [bytes(raw) if is_given(raw) else b"" for raw in parts.seeds]
    name = (model or head.model).encode()
    seed = xxh3_64_intdigest(b"\0".join((name, *seeds)) if any(seeds) else name)
    if is_given(parts.messages):
        return _chat(parts, parts.system, messages_text(parts.messages), seed)
    if is_given(parts.prompt):
        return _completion(bytes(parts.prompt), seed)
    if is_given(parts.input):
        return _input(parts, seed)
    return NO_PROMPT


def _without_keys(parts: PromptParts) -> Prompt:
    """A prompt without keys, only with a length."""
    raws = (parts.messages, parts.system, parts.prompt, parts.input, parts.instructions)
    return Prompt(NO_PROMPT.keys, size=sum(len(bytes(raw)) for raw in raws if raw is not ABSENT))


def _has_too_many_elements(raw: msgspec.Raw) -> bool:
    return raw is not ABSENT and bytes(raw).count(b",") > MAX_COMMAS


def _input(parts: PromptParts, seed: int) -> Prompt:
    """Prompt in OpenAI's `input`: text or items (responses), text, ids or lists (embeddings)."""
    raw = bytes(parts.input)
    is_items = _first_byte(raw) == b"{"
    if not (is_given(parts.instructions) or is_items):
        return _completion(raw, seed)
    text = messages_text(parts.input) if is_items else message_text("user", parts.input)
    return _chat(parts, parts.instructions, text, seed)


def _chat(parts: PromptParts, system: msgspec.Raw, text: str, seed: int) -> Prompt:
    """Prompt of a conversation. Tools come first, because templates render them at the start."""
    if is_given(system):
        text = message_text("system", system) + text
    if is_given(parts.tools):
        text = tools_text(parts.tools) + text
    return _chain(encode(text), seed, reply=REPLY_START)


def _completion(raw: bytes, seed: int) -> Prompt:
    """Prompt that is a text, token ids, or a list of either; of a list, the first one counts."""
    first = _first_byte(raw)
    if first == b'"':
        if raw[:1] == b'"':
            return _chain(encode(_string_decoder.decode(raw)), seed)
        if raw.count(b",") > MAX_COMMAS:
            return Prompt(NO_PROMPT.keys, size=len(raw))
        return _chain(encode(_strings_decoder.decode(raw)[0]), seed)
    if first == b"[":
        inner = raw[raw.index(b"[", 1) :]
        return _token_ids(inner[: inner.index(b"]") + 1], seed)
    return NO_PROMPT if first == b"]" else _token_ids(raw, seed)


def _token_ids(raw: bytes, seed: int) -> Prompt:
    if len(raw) > MAX_IDS_TEXT:
        raw = raw[: raw.rindex(b",", 0, MAX_IDS_TEXT)] + b"]"
    ids = array("I", _ids_decoder.decode(raw)).tobytes()
    return _chain(ids, ~seed & 0xFFFF_FFFF_FFFF_FFFF, is_token_ids=True)


def _first_byte(raw: bytes) -> bytes:
    """First byte of a JSON value, or of the first element if it is a list."""
    match = _FIRST_ELEMENT.match(raw)
    return match[1] if match else raw[:1]
