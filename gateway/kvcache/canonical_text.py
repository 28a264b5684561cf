"""Canonical text of a conversation: its parts in the order in which a chat template renders them.

Roles, contents and other fields are told apart by control characters. Parts that are not text
(images, audio, unknown kinds) are represented by the hash of their JSON.
"""

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.request.head import ABSENT

_ROLE = "\x1e"
_CONTENT = "\x1f"
_EXTRA = "\x1d"
_HASHED = "\x1c"
REPLY_START = f"{_ROLE}assistant{_CONTENT}".encode()
"""Canonical text between a conversation and the assistant's reply."""
HASH_MARK = _HASHED.encode()
"""Byte that stands before the hash of a part that is not text."""
_EMPTY = (ABSENT, msgspec.Raw(b"null"), msgspec.Raw(b"[]"))
"""The ways in which clients write fields that they do not use."""


class _PromptMessage(msgspec.Struct):
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


_content_decoder = msgspec.json.Decoder(str | list[msgspec.Raw])
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_message_decoder = msgspec.json.Decoder(_PromptMessage)
_part_decoder = msgspec.json.Decoder(_Part)


def is_given(raw: msgspec.Raw) -> bool:
    """Whether a request's field says anything: it is neither absent nor null nor empty."""
    return raw is not ABSENT and raw not in _EMPTY


def messages_text(raw: msgspec.Raw) -> str:
    """Canonical text of a JSON list of messages."""
    return "".join(map(_message, _list_decoder.decode(raw)))


def message_text(role: str, raw: msgspec.Raw) -> str:
    """Canonical text of a message with this role and the JSON of its content."""
    return f"{_ROLE}{role}{_CONTENT}{_content(_content_decoder.decode(raw))}"


def tools_text(raw: msgspec.Raw) -> str:
    """Canonical text of a request's tools: their JSON as it was sent."""
    return f"{_ROLE}tools{_CONTENT}{bytes(raw).decode()}"


def encode(text: str) -> bytes:
    """Canonical text as bytes; lone surrogates, which JSON allows, included."""
    return text.encode(errors="surrogatepass")


def _message(raw: msgspec.Raw) -> str:
    if not _is_object(raw):
        return _hashed(raw)
    try:
        message = _message_decoder.decode(raw)
    except msgspec.ValidationError:
        return _hashed(raw)
    if not message.role:
        return _hashed(raw)
    extras = "".join(
        _EXTRA + bytes(extra).decode()
        for extra in (message.name, message.tool_call_id, message.tool_calls)
        if is_given(extra)
    )
    return f"{_ROLE}{message.role}{extras}{_CONTENT}{_content(message.content)}"


def _content(content: str | list[msgspec.Raw] | None, *, is_inner: bool = False) -> str:
    if isinstance(content, str):
        return content
    return "".join(_part(raw, is_inner) for raw in content or ())


def _part(raw: msgspec.Raw, is_inner: bool) -> str:
    if not _is_object(raw):
        return _hashed(raw)
    try:
        part = _part_decoder.decode(raw)
    except msgspec.ValidationError:
        return _hashed(raw)
    if part.type.endswith("text") and part.text is not None:
        return part.text
    # Results nested in results mean nothing, and each level would be parsed once more than the
    # level around it.
    if part.type == "tool_result" and not is_inner:
        return f"{_EXTRA}{part.tool_use_id}{_EXTRA}{_content(part.content, is_inner=True)}"
    if part.type == "tool_use":
        return f"{_EXTRA}{part.id}{_EXTRA}{part.name}{_EXTRA}{bytes(part.input).decode()}"
    return _hashed(raw)


def _is_object(raw: msgspec.Raw) -> bool:
    return bytes(raw).startswith(b"{")


def _hashed(raw: msgspec.Raw) -> str:
    """Stand-in for something that is not text."""
    return f"{_HASHED}{xxh3_64_intdigest(bytes(raw)):016x}"
