"""Messages of a stored chat, as OpenAI lists them: each with an id."""

import msgspec

Fields = dict[str, msgspec.Raw]
_list = msgspec.json.Decoder(list[Fields])
_EMPTY = (msgspec.Raw(b"null"), msgspec.Raw(b'""'))


def shown_messages(chat_id: str, messages: bytes) -> list[tuple[str, bytes]]:
    """The messages of a chat, with their ids."""
    return [
        (identifier := f"{chat_id}-{place}", msgspec.json.encode(_shown(identifier, fields)))
        for place, fields in enumerate(_list.decode(messages))
    ]


def _shown(identifier: str, fields: Fields) -> Fields:
    shown = {"id": _raw(identifier), "refusal": _EMPTY[0], **fields}
    content = bytes(shown.get("content", _EMPTY[0]))
    if content[:1] == b"[":
        shown["content_parts"], shown["content"] = msgspec.Raw(content), _EMPTY[0]
    else:
        shown["content_parts"], shown["content"] = _EMPTY[0], msgspec.Raw(content)
    return shown


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
