"""Items of OpenAI's Responses API: their ids, and how the API shows what clients have sent."""

import secrets
from collections.abc import Mapping

import msgspec

from gateway.errors.request import InvalidRequest
from gateway.request.parse_cost import MAX_ITEMS, most_items

ID_BYTES = 24
"""Random bytes of an id."""
PREFIXES: Mapping[str, str] = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "compaction": "cmp",
}
"""Beginnings of the ids of items, by type."""
REFERENCE = "item_reference"
MAX_ID = 256
"""Characters of an id that a client chooses."""
RawItem = dict[str, msgspec.Raw]
_HAVE_STATUS = frozenset(PREFIXES) - {"compaction"}
_ID = b'"id"'
_NULL = msgspec.Raw(b"null")
_COMPLETED = msgspec.Raw(b'"completed"')


class _Known(msgspec.Struct):
    """The fields by which an item is known."""

    type: str | None = None
    id: str | None = None
    role: str | None = None


class _GivenTextPart(msgspec.Struct, tag="input_text"):
    text: str


class _SaidTextPart(msgspec.Struct, tag="output_text"):
    text: str
    annotations: tuple[()] = ()
    logprobs: tuple[()] = ()


_known = msgspec.json.Decoder(_Known)
_fields = msgspec.json.Decoder(RawItem)
_list = msgspec.json.Decoder(list[msgspec.Raw])
_input = msgspec.json.Decoder(str | list[msgspec.Raw])
_text = msgspec.json.Decoder(str)


def new_item_id(kind: str) -> str:
    """A new id for an item of this type."""
    return f"{PREFIXES.get(kind, 'item')}_{secrets.token_hex(ID_BYTES)}"


def is_usable_id(identifier: str) -> bool:
    """Whether an id of a client's can be stored, and looked for."""
    return len(identifier) <= MAX_ID and identifier.isprintable()


def check_count(raw: msgspec.Raw, param: str) -> None:
    """Check that a list of items can be taken apart in a short time.

    Raises:
        InvalidRequest: it may have too many items.
    """
    text = bytes(raw)
    if text[:1] == b"[" and most_items(text) > MAX_ITEMS:
        raise InvalidRequest(f"`{param}` has too many items.", param)


def split_input(raw: msgspec.Raw) -> list[bytes]:
    """The items of a request's `input`; a text is one message of the user's.

    Raises:
        InvalidRequest: it is neither a text nor a list, or has too many items.
    """
    check_count(raw, "input")
    try:
        given = _input.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidRequest(
            "`input` must be a string or an array of input items.", "input"
        ) from None
    if isinstance(given, str):
        message = {"type": "message", "role": "user", "content": given}
        return [msgspec.json.encode(message)]
    return [bytes(each) for each in given]


def split_items(raw: msgspec.Raw) -> list[bytes]:
    """The items of a JSON list of objects that engines have made."""
    return [bytes(each) for each in _list.decode(raw)]


def referred_id(item: bytes) -> str | None:
    """The id of the item that a reference stands for; None if the item is none."""
    if _ID not in item or item[:1] != b"{":
        return None
    try:
        known = _known.decode(item)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    is_bare = known.type is None and known.role is None
    return known.id if known.type == REFERENCE or (is_bare and known.id) else None


def with_id(item: bytes, param: str, *, is_new: bool = False) -> tuple[str, bytes]:
    """An item with its id; `is_new`: another than it has. Also says which id that is.

    Raises:
        InvalidRequest: it is no item.
    """
    try:
        known, fields = _known.decode(item), _fields.decode(item)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidRequest(f"`{param}` must be an item.", param) from None
    kind = known.type or "message"
    if known.type is None:
        if known.role is None:
            raise InvalidRequest(f"`{param}` must have a `type`.", param)
        fields = {"type": _raw(kind), **fields}
    identifier = known.id
    if is_new or not identifier or not is_usable_id(identifier):
        identifier = new_item_id(kind)
        fields["id"] = _raw(identifier)
    return identifier, msgspec.json.encode(fields)


def shown_item(data: bytes) -> bytes:
    """A kept item as the API shows it: complete, and its content in parts."""
    fields, known = _fields.decode(data), _known.decode(data)
    kind = known.type or "message"
    if kind in _HAVE_STATUS and fields.get("status", _NULL) == _NULL:
        fields["status"] = _COMPLETED
    if kind == "message" and bytes(fields.get("content", _NULL))[:1] == b'"':
        text = _text.decode(fields["content"])
        part = _SaidTextPart(text) if known.role == "assistant" else _GivenTextPart(text)
        fields["content"] = _raw([part])
    if kind == "reasoning":
        fields.setdefault("summary", msgspec.Raw(b"[]"))
    return msgspec.json.encode(fields)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
