"""Cost of parsing JSON: an upper bound that needs no parsing."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.request.parse_cost import MAX_ITEMS, count_up_to, list_items, most_items, parse_cost

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def _values(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(_values, value))
    if isinstance(value, dict):
        return 1 + sum(map(_values, value.values()))
    return 1


@given(VALUES)
def test_a_text_has_no_more_values_than_its_cost_says(value: object) -> None:
    """Each value but the first follows a comma or an opening bracket."""
    assert _values(value) <= 1 + 2 * parse_cost(json.dumps(value).encode(), 10**9)


def test_escapes_cost() -> None:
    """A string of escapes takes long to decode, though it is one value."""
    assert parse_cost(b'"' + rb"\u0041" * 1000 + b'"', 10**9) == 1000


def test_counts_end_at_a_limit() -> None:
    """What is too costly anyway is not counted to its end."""
    text = b"," * 10_000_000
    assert 5 < count_up_to(text, (b",",), 5) < len(text) / 10
    assert count_up_to(text, (b",",), 10**9) == len(text)


def test_items_of_a_list_are_told_apart_within_bounds() -> None:
    """Of a list that may have too many, and of what is none, there are no items."""
    items = list_items(msgspec.Raw(b'["a,b",[1,2],{}]'))
    assert [bytes(item) for item in items] == [b'"a,b"', b"[1,2]", b"{}"]
    for text in (b'"[1,2]"', b"{}", b"", b"[1", b"[" + b"1," * MAX_ITEMS + b"1]"):
        assert list_items(msgspec.Raw(text)) == []


def test_commas_in_texts_are_no_items_of_a_list() -> None:
    """Long texts have many of them, and escaped quotes."""
    texts = ["\\", '",', "," * MAX_ITEMS, '\\"']
    raw = msgspec.Raw(json.dumps(texts).encode())
    assert len(list_items(raw)) == most_items(bytes(raw)) == len(texts)
