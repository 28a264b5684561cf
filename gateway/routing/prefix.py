"""A prompt as a chain of prefix keys, one for each 256 bytes of its canonical text.

Method: what the client sent is written out as one canonical text in the order in which a chat
template renders it, and hashed block by block: `key[i] = xxh3_64(block[i], seed=key[i - 1])`. Two
prompts share their first n keys exactly when their first n blocks, and all that changes how a
prompt begins (model, salt, tools, template arguments...), are the same: the property that vLLM's
block hashes have, but computed without a tokenizer. Cost: O(length), no copy of the body.
"""

import re
from array import array
from collections.abc import Iterable, Sequence

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.request import ABSENT, RequestHead

KEY_BYTES = 256
"""Bytes of canonical text that a key stands for."""
MAX_KEYS = 8192
"""Keys of a prompt at most: 2 MiB of text; what comes later is not looked at."""
MAX_OBJECTS = 100_000
"""Messages and parts, or braces in texts; megabytes of tiny ones would hold everybody else up."""
TOKEN_ID_BYTES = 4

_ROLE = "\x1e"
_CONTENT = "\x1f"
_OBJECT = "\x1d"
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
    key_bytes: int = KEY_BYTES


NO_PROMPT = Prompt(keys=array("Q"))


def prompt_of(head: RequestHead) -> Prompt:
    """The prompt of any inference request; empty where it cannot be read; never raises."""
    try:
        return _read(head)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        return NO_PROMPT


def extend(key: int, text: bytes, key_bytes: int = KEY_BYTES) -> "array[int]":
    """The keys that follow `key` when `text` follows its block; whole blocks only."""
    keys = array("Q")
    for start in range(0, len(text) - key_bytes + 1, key_bytes):
        key = xxh3_64_intdigest(text[start : start + key_bytes], key)
        keys.append(key)
    return keys


def _chain(text: bytes, seed: int, *, reply: bytes = b"", is_token_ids: bool = False) -> Prompt:
    keys = extend(seed, text[: MAX_KEYS * KEY_BYTES])
    start = text[len(keys) * KEY_BYTES :] + reply if len(keys) < MAX_KEYS else None
    return Prompt(keys, len(text), seed, start, is_token_ids)


def _read(head: RequestHead) -> Prompt:
    parts = head.prompt
    structured = (parts.messages, parts.system, parts.input)
    if any(raw is not ABSENT and bytes(raw).count(b"{") > MAX_OBJECTS for raw in structured):
        return NO_PROMPT
    seeds = [bytes(raw) if _is_given(raw) else b"" for raw in parts.seeds]
    model = head.model.encode()
    seed = xxh3_64_intdigest(b"\0".join((model, *seeds)) if any(seeds) else model)
    if _is_given(parts.messages):
        system = _message("system", parts.system) if _is_given(parts.system) else ""
        return _chat(system + _messages(parts.messages), seed)
    if _is_given(parts.prompt):
        return _plain(bytes(parts.prompt), seed)
    if _is_given(parts.input):
        return _input(parts.input, parts.instructions, seed)
    return NO_PROMPT


def _is_given(raw: msgspec.Raw) -> bool:
    return raw is not ABSENT and raw not in _NOTHING


def _input(input_: msgspec.Raw, instructions: msgspec.Raw, seed: int) -> Prompt:
    """OpenAI's `input`: text or items for responses; a text, ids or a list of them to embed."""
    raw = bytes(input_)
    is_items = _first_kind(raw) == b"{"
    if not (_is_given(instructions) or is_items):
        return _plain(raw, seed)
    system = _message("system", instructions) if _is_given(instructions) else ""
    return _chat(system + (_messages(input_) if is_items else _message("user", input_)), seed)


def _chat(text: str, seed: int) -> Prompt:
    return _chain(_encoded(text), seed, reply=_REPLY_START)


def _plain(raw: bytes, seed: int) -> Prompt:
    """A text, token ids, or a list of either, of which the first counts."""
    kind = _first_kind(raw)
    if kind == b'"':
        text = _texts.decode(raw)
        first = text if isinstance(text, str) else text[0]
        return _chain(_encoded(first), seed)
    if kind == b"[":
        return _ids(_id_lists.decode(raw)[0], seed)
    return NO_PROMPT if kind == b"]" else _ids(_id_list.decode(raw), seed)


def _ids(ids: Iterable[int], seed: int) -> Prompt:
    return _chain(array("I", ids).tobytes(), ~seed & 0xFFFF_FFFF_FFFF_FFFF, is_token_ids=True)


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


_texts = msgspec.json.Decoder(str | list[str])
_id_list = msgspec.json.Decoder(list[int])
_id_lists = msgspec.json.Decoder(list[list[int]])
_contents = msgspec.json.Decoder(str | list[msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_message_items = msgspec.json.Decoder(_Message)
_parts = msgspec.json.Decoder(_Part)


def _messages(raw: msgspec.Raw) -> str:
    return "".join(map(_rendered, _items.decode(raw)))


def _message(role: str, raw: msgspec.Raw) -> str:
    return f"{_ROLE}{role}{_CONTENT}{_content(_contents.decode(raw))}"


def _rendered(raw: msgspec.Raw) -> str:
    try:
        message = _message_items.decode(raw)
    except msgspec.ValidationError:
        return _digest(raw)
    if not message.role:
        return _digest(raw)
    extras = "".join(
        _digest(extra)
        for extra in (message.name, message.tool_call_id, message.tool_calls)
        if _is_given(extra)
    )
    return f"{_ROLE}{message.role}{extras}{_CONTENT}{_content(message.content)}"


def _content(content: str | list[msgspec.Raw] | None, *, is_inner: bool = False) -> str:
    if isinstance(content, str):
        return content
    return "".join(_rendered_part(raw, is_inner) for raw in content or ())


def _rendered_part(raw: msgspec.Raw, is_inner: bool) -> str:
    try:
        part = _parts.decode(raw)
    except msgspec.ValidationError:
        return _digest(raw)
    if part.type.endswith("text") and part.text is not None:
        return part.text
    # Results in results mean nothing, and each level would be read once more than that around it.
    if part.type == "tool_result" and not is_inner:
        return f"{_OBJECT}{part.tool_use_id}{_OBJECT}{_content(part.content, is_inner=True)}"
    if part.type == "tool_use":
        return f"{_OBJECT}{part.id}{_OBJECT}{part.name}{_digest(part.input)}"
    return _digest(raw)


def _digest(raw: msgspec.Raw) -> str:
    """What is not text (images, audio, tool calls) counts by its content."""
    return f"{_OBJECT}{xxh3_64_intdigest(bytes(raw)):016x}"


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
