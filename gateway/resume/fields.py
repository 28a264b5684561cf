"""JSON objects that are passed on with some of their fields changed, and the others as written."""

import msgspec

Fields = dict[str, msgspec.Raw]
NULL = msgspec.Raw(b"null")


def is_given(fields: Fields, name: str) -> bool:
    """Whether a field is there and has a value."""
    return fields.get(name, NULL) != NULL


def raw(value: object) -> msgspec.Raw:
    """A value as a field has it."""
    return msgspec.Raw(msgspec.json.encode(value))
