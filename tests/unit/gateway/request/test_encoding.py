"""Encoding of bodies: bytes and escapes that stand for no characters are named."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors.request import InvalidJSON
from gateway.request import encoding
from gateway.request.encoding import WINDOW, check_encoding, without_mark


def test_a_byte_order_mark_is_left_out() -> None:
    """RFC 8259 lets a parser ignore it; engines get the rest only."""
    assert without_mark(b'\xef\xbb\xbf{"model":"m"}') == b'{"model":"m"}'
    assert without_mark(b"{}") == b"{}"


@pytest.mark.parametrize(
    "body",
    [rb'"\ud83d"', rb'"\\\ud83d"', rb'"\ude00\ud83d"', rb'"\uD83D\uDE00\uDE00"', rb'"\ud83d\n"'],
)
def test_half_a_surrogate_pair_is_named(body: bytes) -> None:
    """Engines fail to tokenize it, with an error of their own."""
    with pytest.raises(InvalidJSON, match="half of a surrogate pair"):
        check_encoding(body)


@pytest.mark.parametrize("body", [rb'"\ud83d\ude00"', rb'"\\ud83d"', rb'"\ud7ff"', b"\\" * 9])
def test_pairs_and_escaped_backslashes_are_characters(body: bytes) -> None:
    """Two halves make an emoji; after an escaped backslash, the rest is text."""
    check_encoding(body)


@given(st.text(st.characters()).map(json.dumps))
def test_whatever_has_lone_surrogates_is_found(body: str) -> None:
    """Compared with Python's own parser."""
    is_text = True
    try:
        json.loads(body).encode()
    except UnicodeEncodeError:
        is_text = False
    if is_text:
        check_encoding(body.encode())
    else:
        with pytest.raises(InvalidJSON):
            check_encoding(body.encode())


@pytest.mark.parametrize("position", [0, WINDOW - 1, WINDOW, 2 * WINDOW])
def test_invalid_bytes_are_found_anywhere(position: int) -> None:
    """A character may lie across the windows that are decoded; half a one is invalid."""
    text = ("é" * WINDOW).encode()
    check_encoding(b"a" + text)
    with pytest.raises(InvalidJSON, match="not valid UTF-8"):
        check_encoding(text[:position] + b"\xff" + text[position:])
    with pytest.raises(InvalidJSON, match="not valid UTF-8"):
        check_encoding(b'"' + text[:-1])


def test_a_body_of_very_many_escapes_is_left_to_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The work of finding surrogates is bounded."""
    monkeypatch.setattr(encoding, "MAX_ESCAPES", 10)
    with contextlib.suppress(InvalidJSON):
        check_encoding(rb"\u0041" * 10 + rb"\ud83d")
        check_encoding(rb"\u0041" * 9 + rb"\ud83d")
        raise AssertionError
    check_encoding(rb"\u0041" * 10 + rb"\ud83d")
