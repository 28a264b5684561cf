"""Cost of parsing JSON, bounded before anything is parsed: by counts of the bytes that cost time.

Method: a value that becomes an object follows a comma or an opening bracket, and only a backslash
makes a string costly to decode. Bytes of these kinds inside strings count too, so the cost is an
upper bound for any text. All other bytes are skipped or copied, which is faster than receiving
them.

Cost: O(length), about 1 ns a byte; nothing for a text of at most `CHEAP_BYTES`.
"""

from collections.abc import Iterable

import msgspec

CHEAP_BYTES = 1 << 16
"""A text of this size may be parsed whatever it is."""
_COSTLY = (b",", b"[", b"{", b"\\")


def parse_cost(text: bytes) -> int:
    """Upper bound of the values and escapes in a JSON text."""
    return sum(map(text.count, _COSTLY))


def is_cheap(raws: Iterable[msgspec.Raw], most: int) -> bool:
    """Whether parsing all of these makes at most `most` values and escapes."""
    texts = [bytes(raw) for raw in raws]
    if sum(map(len, texts)) <= CHEAP_BYTES:
        return True
    return sum(map(parse_cost, texts)) <= most
