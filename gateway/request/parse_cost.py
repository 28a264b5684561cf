"""Cost of parsing JSON, bounded before anything is parsed: by counts of the bytes that cost time.

Method: a value that becomes an object follows a comma or an opening bracket, and only a backslash
makes a string costly to decode. Bytes of these kinds inside strings count too, so the cost is an
upper bound for any text. All other bytes are skipped or copied, which is faster than receiving
them.

Cost: less than 1 ns a byte, and some for each byte that is counted; counts end at a limit.
"""

from collections.abc import Sequence

import msgspec

MAX_ITEMS = 400_000
"""Commas of a list whose items are told apart; more would block the event loop."""
MAX_ESCAPES = 2_000_000
"""Backslashes of a text that is looked into for its commas."""
_WINDOW = 1 << 17
_COMMAS = (b",",)
_ESCAPES = (b"\\",)
_QUOTES = (b'"',)
_COSTLY = (b",", b"[", b"{", b"\\")
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def count_up_to(text: bytes, kinds: Sequence[bytes], most: int) -> int:
    """Bytes of these kinds in a text; the count ends above `most`."""
    found = 0
    for start in range(0, len(text), _WINDOW):
        found += sum(text.count(kind, start, start + _WINDOW) for kind in kinds)
        if found > most:
            break
    return found


def parse_cost(text: bytes, most: int) -> int:
    """Upper bound of the values and escapes in a JSON text; the count ends above `most`."""
    return count_up_to(text, _COSTLY, most)


def most_items(text: bytes) -> int:
    """Upper bound of the items of a JSON list, by its commas; the count ends above `MAX_ITEMS`.

    Where there are many commas, those in strings are left out.
    """
    found = count_up_to(text, _COMMAS, MAX_ITEMS)
    if found > MAX_ITEMS and (plain := _without_strings(text)) is not None:
        found = count_up_to(plain, _COMMAS, MAX_ITEMS)
    return found + 1


def list_items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """Items of a JSON list, undecoded; none of anything else, or of a list that may be too long."""
    text = bytes(raw)
    if text[:1] != b"[" or most_items(text) > MAX_ITEMS:
        return []
    try:
        return _list_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def _without_strings(text: bytes) -> bytes | None:
    """The JSON outside of strings; None if it has too many of them, or of escapes."""
    if count_up_to(text, _ESCAPES, MAX_ESCAPES) > MAX_ESCAPES:
        return None
    plain = text.replace(rb"\\", b"__").replace(rb"\"", b"__") if b"\\" in text else text
    if count_up_to(plain, _QUOTES, MAX_ITEMS) > MAX_ITEMS:
        return None
    return b"".join(plain.split(b'"')[::2])
