"""JSON values as engines read them: pydantic's conversions in its lax mode.

Engines take `"n": "2"` and `"stream": "yes"`, so the gateway has to read them in the same way. What
engines reject is read as None.
"""

import re

import msgspec

LONGEST_NUMBER = 4300
"""Characters of a number at most, as in Python."""
_INTEGER = re.compile(r"([+-]?\d+(?:_\d+)*)(?:\.0+)?", re.ASCII)
_TRUE = frozenset({"1", "t", "true", "y", "yes", "on"})
_decoder = msgspec.json.Decoder(bool | int | float | str | None)


def read_int(raw: msgspec.Raw) -> int | None:
    """The whole number that a JSON value stands for; None if it stands for none."""
    value = _read(raw)
    if isinstance(value, str):
        match = _INTEGER.fullmatch(value.strip())
        return int(match[1]) if match else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return None if value is None else int(value)


def read_bool(raw: msgspec.Raw) -> bool:
    """Whether a JSON value stands for true."""
    value = _read(raw)
    return value.lower() in _TRUE if isinstance(value, str) else value == 1


def is_true(text: bytes) -> bool:
    """Whether the value of a form's field stands for true."""
    return text.lower().decode("latin-1") in _TRUE


def _read(raw: msgspec.Raw) -> bool | int | float | str | None:
    if len(raw) > LONGEST_NUMBER + 2:
        return None
    try:
        value: bool | int | float | str | None = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        return None
    return value
