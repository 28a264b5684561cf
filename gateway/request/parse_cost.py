"""Cost of parsing JSON, bounded before anything is parsed: by counts of the bytes that cost time.

Method: a value that becomes an object follows a comma or an opening bracket, and only a backslash
makes a string costly to decode. Bytes of these kinds inside strings count too, so the cost is an
upper bound for any text. All other bytes are skipped or copied, which is faster than receiving
them.

Cost: O(length), about 1 ns a byte.
"""

import msgspec

MAX_ITEMS = 400_000
"""Commas of a list whose items are told apart; more would block the event loop."""
MAX_ESCAPES = 2_000_000
"""Backslashes of a text that is looked into for its commas."""
_COSTLY = (b",", b"[", b"{", b"\\")
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def parse_cost(text: bytes) -> int:
    """Upper bound of the values and escapes in a JSON text."""
    return sum(map(text.count, _COSTLY))


def most_items(text: bytes) -> int:
    """Upper bound of the items of a JSON list: of its commas, outside of strings if many."""
    found = text.count(b",")
    return 1 + (found if found <= MAX_ITEMS else _without_strings(text).count(b","))


def list_items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """Items of a JSON list, undecoded; none of anything else, or of a list that may be too long."""
    text = bytes(raw)
    if text[:1] != b"[" or most_items(text) > MAX_ITEMS:
        return []
    try:
        return _list_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def _without_strings(text: bytes) -> bytes:
    """The JSON outside of strings; all of it if it has too many of them, or of escapes."""
    if text.count(b"\\") > MAX_ESCAPES:
        return text
    plain = text.replace(rb"\\", b"__").replace(rb"\"", b"__") if b"\\" in text else text
    if plain.count(b'"') > MAX_ITEMS:
        return text
    return b"".join(plain.split(b'"')[::2])
