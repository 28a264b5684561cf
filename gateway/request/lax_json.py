"""JSON values as engines read them: pydantic's conversions in its lax mode.

Engines take `"n": "2"` and `"stream": "yes"`, so the gateway has to read them in the same way. What
engines reject is read as None.
"""

import re

import msgspec

LONGEST_NUMBER = 4300
"""Digits of a number at most, as in Python; zeros and spaces before it do not count."""
LONGEST_VALUE = 1 << 20
"""Bytes of a value that is read; there are no honest ones of that size."""
JsonScalar = bool | int | float | str | None
_INTEGER = re.compile(
    r"([+-]?)(?>0[0_]*(?=\d))?+(\d++(?:_\d++)*+)(?:\.0+)?",  # linear: it never goes back
    re.ASCII,
)
_TRUE = frozenset({"1", "t", "true", "y", "yes", "on"})
_decoder = msgspec.json.Decoder(JsonScalar)


def read_int(raw: msgspec.Raw) -> int | None:
    """The whole number that a JSON value stands for; None if it stands for none."""
    return as_int(_read(raw))


def read_bool(raw: msgspec.Raw) -> bool:
    """Whether a JSON value stands for true."""
    return as_bool(_read(raw))


def is_true(text: bytes) -> bool:
    """Whether the value of a form's field stands for true."""
    return as_bool(text.decode("latin-1"))


def as_int(value: JsonScalar) -> int | None:
    """The whole number that a value stands for; None if it stands for none."""
    if isinstance(value, str):
        return _parse_int(value.strip())
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return None if value is None else int(value)


def as_bool(value: JsonScalar) -> bool:
    """Whether a value stands for true."""
    return value.lower() in _TRUE if isinstance(value, str) else value == 1


def _parse_int(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    digits = match[2].replace("_", "") if match else ""
    return int(match[1] + digits) if match and len(digits) <= LONGEST_NUMBER else None


def _read(raw: msgspec.Raw) -> JsonScalar:
    if len(raw) > LONGEST_VALUE:
        return None
    try:
        value: JsonScalar = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        return None
    return value
