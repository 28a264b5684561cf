"""A prompt as a chain of prefix keys, one for each 256 bytes of its canonical text.

Method: what the client sent is written out as one canonical text in the order in which a chat
template renders it, and hashed block by block: `key[i] = xxh3_64(block[i], seed=key[i - 1])`. Two
prompts share their first n keys exactly when their first n blocks, and all that changes how a
prompt begins (model, salt, tools, template arguments...), are the same: the property that vLLM's
block hashes have, but computed without a tokenizer. Cost: O(length), no copy of the body.
"""

import re
from array import array
from collections.abc import Sequence

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.request.head import ABSENT, PromptParts, RequestHead

KEY_BYTES = 256
"""Bytes of canonical text that a key stands for."""
MAX_KEYS = 8192
"""Keys of a prompt at most: 2 MiB of text; what comes later is not looked at."""
MAX_ELEMENTS = 100_000
"""Commas in what has to be taken apart; megabytes of tiny parts would hold everybody else up."""
MAX_IDS_TEXT = 5_000_000
"""Bytes of JSON in which as many token ids as keys can stand for have room."""
TOKEN_ID_BYTES = 4

_ROLE = "\x1e"
_CONTENT = "\x1f"
_EXTRA = "\x1d"
_HASHED = "\x1c"
_REPLY_START = f"{_ROLE}assistant{_CONTENT}".encode()
_NOTHING = (ABSENT, msgspec.Raw(b"null"), msgspec.Raw(b"[]"))
"""Clients write fields that they do not use in all of these ways."""
_KIND = re.compile(rb"\[\s*(.)", re.DOTALL)


class Prompt(msgspec.Struct, frozen=True):
    """A prompt, as far as routing looks at it."""

    keys: Sequence[int]
    size: int = 0
    """Bytes of its canonical text, or four for each token id."""
    seed: int = 0
    """What stands before the first key."""
    reply_start: bytes | None = None
    """Canonical text after the last key, up to where the reply follows; None if it cannot."""
    is_token_ids: bool = False
    has_media: bool = False
    """Some of it (images, audio) is in the text by its hash only: it has more tokens than shows."""
    key_bytes: int = KEY_BYTES


NO_PROMPT = Prompt(keys=array("Q"))


def prompt_of(head: RequestHead, model: str = "") -> Prompt:
    """The prompt of any inference request; without keys where it cannot be read; never raises.

    `model`: what answers it, a model or an adapter, where the client calls that by another name.
    """
    try:
        return _read(head, model)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        return _unread(head.prompt)


def extend(key: int, text: bytes, key_bytes: int = KEY_BYTES) -> "array[int]":
    """The keys that follow `key` when `text` follows its block; whole blocks only."""
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
        has_media=not is_token_ids and _HASHED.encode() in text,
    )


def _read(head: RequestHead, model: str) -> Prompt:
    parts = head.prompt
    if any(map(_is_crowded, (parts.messages, parts.system, parts.input))):
        return _unread(parts)
    seeds = [bytes(raw) if _is_given(raw) else b"" for raw in parts.seeds]
    name = (model or head.model).encode()
    seed = xxh3_64_intdigest(b"\0".join((name, *seeds)) if any(seeds) else name)
    if _is_given(parts.messages):
        return _chat(parts, parts.system, _messages(parts.messages), seed)
    if _is_given(parts.prompt):
        return _plain(bytes(parts.prompt), seed)
    if _is_given(parts.input):
        return _input(parts, seed)
    return NO_PROMPT


def _unread(parts: PromptParts) -> Prompt:
    """A prompt of which the length is all that is known."""
    raws = (parts.messages, parts.system, parts.prompt, parts.input, parts.instructions)
    return Prompt(NO_PROMPT.keys, size=sum(len(bytes(raw)) for raw in raws if raw is not ABSENT))


def _is_crowded(raw: msgspec.Raw) -> bool:
    return raw is not ABSENT and bytes(raw).count(b",") > MAX_ELEMENTS


def _is_given(raw: msgspec.Raw) -> bool:
    return raw is not ABSENT and raw not in _NOTHING


def _input(parts: PromptParts, seed: int) -> Prompt:
    """OpenAI's `input`: text or items for responses; a text, ids or a list of them to embed."""
    raw = bytes(parts.input)
    is_items = _first_kind(raw) == b"{"
    if not (_is_given(parts.instructions) or is_items):
        return _plain(raw, seed)
    text = _messages(parts.input) if is_items else _message("user", parts.input)
    return _chat(parts, parts.instructions, text, seed)


def _chat(parts: PromptParts, system: msgspec.Raw, text: str, seed: int) -> Prompt:
    """A conversation, with the tools first: templates put them, or what they say, at the start."""
    if _is_given(system):
        text = _message("system", system) + text
    if _is_given(parts.tools):
        text = f"{_ROLE}tools{_CONTENT}{bytes(parts.tools).decode()}{text}"
    return _chain(_encoded(text), seed, reply=_REPLY_START)


def _plain(raw: bytes, seed: int) -> Prompt:
    """A text, token ids, or a list of either, of which the first counts."""
    kind = _first_kind(raw)
    if kind == b'"':
        if raw[:1] == b'"':
            return _chain(_encoded(_text.decode(raw)), seed)
        if raw.count(b",") > MAX_ELEMENTS:
            return Prompt(NO_PROMPT.keys, size=len(raw))
        return _chain(_encoded(_texts.decode(raw)[0]), seed)
    if kind == b"[":
        first = raw[raw.index(b"[", 1) :]
        return _ids(first[: first.index(b"]") + 1], seed)
    return NO_PROMPT if kind == b"]" else _ids(raw, seed)


def _ids(raw: bytes, seed: int) -> Prompt:
    if len(raw) > MAX_IDS_TEXT:
        raw = raw[: raw.rindex(b",", 0, MAX_IDS_TEXT)] + b"]"
    ids = array("I", _id_list.decode(raw)).tobytes()
    return _chain(ids, ~seed & 0xFFFF_FFFF_FFFF_FFFF, is_token_ids=True)


def _first_kind(raw: bytes) -> bytes:
    """The first byte of a JSON text, or of the first element of a JSON list."""
    match = _KIND.match(raw)
    return match[1] if match else raw[:1]


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[msgspec.Raw] | None = None
    name: msgspec.Raw = ABSENT
    tool_calls: msgspec.Raw = ABSENT
    tool_call_id: msgspec.Raw = ABSENT


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    content: str | list[msgspec.Raw] | None = None
    tool_use_id: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = ABSENT


_text = msgspec.json.Decoder(str)
_texts = msgspec.json.Decoder(list[str])
_id_list = msgspec.json.Decoder(list[int])
_contents = msgspec.json.Decoder(str | list[msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_message_items = msgspec.json.Decoder(_Message)
_parts = msgspec.json.Decoder(_Part)


def _messages(raw: msgspec.Raw) -> str:
    return "".join(map(_rendered, _items.decode(raw)))


def _message(role: str, raw: msgspec.Raw) -> str:
    return f"{_ROLE}{role}{_CONTENT}{_content(_contents.decode(raw))}"


def _rendered(raw: msgspec.Raw) -> str:
    if not _is_object(raw):
        return _hashed(raw)
    try:
        message = _message_items.decode(raw)
    except msgspec.ValidationError:
        return _hashed(raw)
    if not message.role:
        return _hashed(raw)
    extras = "".join(
        _EXTRA + bytes(extra).decode()
        for extra in (message.name, message.tool_call_id, message.tool_calls)
        if _is_given(extra)
    )
    return f"{_ROLE}{message.role}{extras}{_CONTENT}{_content(message.content)}"


def _content(content: str | list[msgspec.Raw] | None, *, is_inner: bool = False) -> str:
    if isinstance(content, str):
        return content
    return "".join(_rendered_part(raw, is_inner) for raw in content or ())


def _rendered_part(raw: msgspec.Raw, is_inner: bool) -> str:
    if not _is_object(raw):
        return _hashed(raw)
    try:
        part = _parts.decode(raw)
    except msgspec.ValidationError:
        return _hashed(raw)
    if part.type.endswith("text") and part.text is not None:
        return part.text
    # Results in results mean nothing, and each level would be read once more than that around it.
    if part.type == "tool_result" and not is_inner:
        return f"{_EXTRA}{part.tool_use_id}{_EXTRA}{_content(part.content, is_inner=True)}"
    if part.type == "tool_use":
        return f"{_EXTRA}{part.id}{_EXTRA}{part.name}{_EXTRA}{bytes(part.input).decode()}"
    return _hashed(raw)


def _is_object(raw: msgspec.Raw) -> bool:
    return bytes(raw).startswith(b"{")


def _hashed(raw: msgspec.Raw) -> str:
    """What is not text (images, audio, whatever is unknown) counts by its content."""
    return f"{_HASHED}{xxh3_64_intdigest(bytes(raw)):016x}"


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
