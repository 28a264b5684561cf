"""Cost of parsing JSON: an upper bound that needs no parsing."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.request.parse_cost import CHEAP_BYTES, is_cheap, parse_cost

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
    assert _values(value) <= 1 + 2 * parse_cost(json.dumps(value).encode())


def test_escapes_cost() -> None:
    """A string of escapes takes long to decode, though it is one value."""
    assert parse_cost(b'"' + rb"\u0041" * 1000 + b'"') == 1000


def test_small_texts_are_cheap_whatever_they_are() -> None:
    """Below a size, nothing is counted; together, several small texts may be large."""
    commas = msgspec.Raw(b"," * (CHEAP_BYTES // 2))
    assert is_cheap([commas, commas], most=1)
    assert not is_cheap([commas, commas, commas], most=CHEAP_BYTES)
    assert is_cheap([msgspec.Raw(b"a" * 10 * CHEAP_BYTES)], most=1)
