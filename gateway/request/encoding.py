"""Encoding of a JSON body: what is wrong with its characters, for bodies that are not parsed.

Engines parse every string of a body; the gateway keeps most of them as bytes, so it has to find
invalid ones by itself. Bodies in ASCII without surrogates, which are most, take about 0.1 ns a
byte.
"""

import codecs
import re

from gateway.errors.request import InvalidJSON

BYTE_ORDER_MARK = codecs.BOM_UTF8
WINDOW = 1 << 20
"""Bytes that are decoded at a time, so that the text is never in memory as a whole."""
MAX_ESCAPES = 500_000
"""Escapes of a body that are checked; where there are more, engines report what is wrong."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]")
_PAIR_LENGTH = len(rb"\ud83d\ude00")


def without_mark(body: bytes) -> bytes:
    """The body without the byte order mark that some clients put before it (RFC 8259, 8.1)."""
    return body.removeprefix(BYTE_ORDER_MARK)


def check_encoding(body: bytes) -> None:
    """Check that all strings of a JSON body consist of characters.

    Raises:
        InvalidJSON: it is not UTF-8, or an escape stands for half a character.
    """
    if not body.isascii():
        _check_utf8(body)
    check_surrogates(body)


def check_surrogates(body: bytes) -> None:
    """Check that no escape stands for half a character: engines cannot tokenize it.

    Raises:
        InvalidJSON: one does; the message names the first.
    """
    if b"\\" in body and b"\\u" in body and body.count(rb"\u") <= MAX_ESCAPES:
        _check_surrogates(body)


def _check_utf8(body: bytes) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(body)
    try:
        for start in range(0, len(body), WINDOW):
            decoder.decode(view[start : start + WINDOW])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise InvalidJSON(
            "We could not parse the JSON body of your request: it is not valid UTF-8."
        ) from None


def _check_surrogates(body: bytes) -> None:
    checked = 0
    while match := _SURROGATE.search(body, checked):
        start = match.start()
        before = body[checked:start]
        if (len(before) - len(before.rstrip(b"\\"))) % 2:
            checked = match.end()  # a backslash in the text, and not an escape
        elif _PAIR.match(body, start):
            checked = start + _PAIR_LENGTH
        else:
            escape = body[start : start + len(rb"\ud83d")].decode(errors="replace")
            raise InvalidJSON(
                f"We could not parse the JSON body of your request: {escape} (byte {start}) is half"
                " of a surrogate pair, which stands for no character. Was a text cut inside an"
                " emoji?"
            )
