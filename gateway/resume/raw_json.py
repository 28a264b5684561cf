"""JSON objects whose fields stay exactly as written unless they are replaced."""

import msgspec

from gateway.upstream.completion_chunk import NULL

RawObject = dict[str, msgspec.Raw]


def has_value(fields: RawObject, name: str) -> bool:
    """Return whether a field is there and not null."""
    return fields.get(name, NULL) != NULL


def to_raw(value: object) -> msgspec.Raw:
    """Encode the value of a field."""
    return msgspec.Raw(msgspec.json.encode(value))
