"""JSON of requests, read within bounds: strings are cut, and values have one normal form.

Large values are looked at in windows and never copied as a whole: to copy megabytes takes as long
as to parse them.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import msgspec
from xxhash import xxh3_64, xxh3_64_intdigest

Raw: TypeAlias = msgspec.Raw | bytes | memoryview

MAX_COMMAS = 400_000
"""Commas in a list whose elements are told apart; more would block the event loop."""
MAX_COST = 4_000_000
"""Values and escapes in all that is read of a request; five megabytes of source code have one."""
MAX_VALUES = 20_000
"""Commas and brackets of a value that is brought into its normal form; a larger one is taken as it
was written."""
SMALL_BYTES = 1 << 14
"""A value of this size is brought into its normal form whatever it is."""
LARGE_BYTES = 1 << 20
"""A value beyond this size is taken as it was written."""
_WINDOW = 1 << 16
_COSTLY = b",[{\\"
"""A value follows a comma or a bracket, and only a backslash makes a string costly to decode."""
_ESCAPE = b"\\"
_ESCAPE_BYTES = 6
"""Bytes of the longest escape, `\\u0041`."""
_SECOND_HALF = re.compile(rb"\\u[dD][c-fC-F]")
"""Second escape of a character that takes two."""
_CONTINUATION = range(0x80, 0xC0)

_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_string_decoder = msgspec.json.Decoder(str)
_sorting_encoder = msgspec.json.Encoder(order="sorted")


def is_too_costly(raws: Iterable[Raw]) -> bool:
    """Whether to read all of these would block the event loop."""
    large = [raw for raw in raws if len(raw) > _WINDOW]
    if sum(map(len, large)) <= LARGE_BYTES:
        return False
    cost = 0
    for raw in large:
        for window in _windows(raw):
            if any(byte in window for byte in _COSTLY):  # base64 has none of them
                cost += len(window) - len(window.translate(None, _COSTLY))
            if cost > MAX_COST:
                return True
    return False


def decode_list(raw: Raw) -> list[msgspec.Raw]:
    """Elements of a JSON list, undecoded.

    Raises:
        ValueError: it has too many.
        msgspec.MsgspecError: it is none.
    """
    if len(raw) > MAX_COMMAS:
        commas = 0
        for window in _windows(raw):
            if b"," in window:  # faster than to count none
                commas += window.count(b",")
            if commas > MAX_COMMAS:
                raise ValueError("The list has too many elements.")
    return _list_decoder.decode(raw)


def decode_string(raw: Raw, limit: int) -> str:
    """Text of a JSON string; of one with more than `limit` bytes, only the beginning."""
    if len(raw) <= limit:
        return _string_decoder.decode(raw)
    text = bytes(memoryview(raw)[: limit + _ESCAPE_BYTES])
    return _string_decoder.decode(text[: _boundary(text, limit)] + b'"')


def normal_json(raw: Raw, *, is_ordered: bool = True) -> bytes:
    """A value without what does not change it: spaces, spellings of numbers and characters.

    `is_ordered`: the order of fields counts. Values that cannot be parsed, or only at some cost,
    are returned as they were written.
    """
    text = bytes(raw)
    if is_costly(text):
        return text
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return text
    return msgspec.json.encode(value) if is_ordered else _sorting_encoder.encode(value)


def digest_of(raw: Raw) -> int:
    """Hash of a value, the same for all its spellings unless it is large."""
    return xxh3_64_intdigest(memoryview(raw) if len(raw) > LARGE_BYTES else normal_json(raw))


def digest_of_url(start: bytes, url: Raw) -> int:
    """Hash of a URL, a JSON string of any size; `start` stands before it."""
    digest = xxh3_64(start)
    view = memoryview(url)
    if b"\\/" not in bytes(view[:_WINDOW]):
        digest.update(view)
    else:
        for window in _windows(url):
            digest.update(window.replace(_ESCAPE, b""))
    return digest.intdigest()


def first_byte(raw: Raw) -> bytes:
    """First byte of a value; empty for an absent one."""
    return bytes(memoryview(raw)[:1])


def is_costly(text: bytes) -> bool:
    """Whether a value is too large for its normal form."""
    if len(text) <= SMALL_BYTES:
        return False
    return len(text) > LARGE_BYTES or sum(map(text.count, (b",", b"[", b"{"))) > MAX_VALUES


def _windows(raw: Raw) -> Iterator[bytes]:
    view = memoryview(raw)
    for start in range(0, len(view), _WINDOW):
        yield bytes(view[start : start + _WINDOW])


def _boundary(text: bytes, end: int) -> int:
    """The last place up to `end` where a string can be cut: not within a character or an escape."""
    while text[end] in _CONTINUATION:
        end -= 1
    start = _last_escape(text, end)
    is_second_half = _SECOND_HALF.match(text, start) is not None
    return _last_escape(text, start) if is_second_half else start


def _last_escape(text: bytes, end: int) -> int:
    """Where the escape begins that may reach to `end`; `end` if there is none."""
    start = text.rfind(_ESCAPE, max(0, end - _ESCAPE_BYTES), end)
    if start < 0:
        return end
    first = start
    while text[first - 1 : first] == _ESCAPE:
        first -= 1
    return end if (start - first) % 2 else start
