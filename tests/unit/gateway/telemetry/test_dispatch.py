"""What a router tells an engine along with a request."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.dispatch import Dispatch

IDS = st.integers(0, 2**64 - 1)
COUNTS = st.integers(0, 2**40)
DISPATCHES = st.builds(
    Dispatch,
    id=IDS,
    keys=st.lists(st.binary(min_size=8, max_size=8), max_size=5).map(b"".join),
    key_bytes=COUNTS,
    prompt_bytes=COUNTS,
    seed=IDS,
    reply_start=st.none() | st.binary(max_size=40),
    is_token_ids=st.booleans(),
    priority=st.integers(-(2**63), 2**63 - 1),
    answered_bytes=COUNTS,
)


@given(DISPATCHES)
def test_a_dispatch_survives_encoding(dispatch: Dispatch) -> None:
    """The engine decodes what the router encoded, and the value is valid in a header."""
    header = dispatch.encode()
    assert Dispatch.decode(header) == dispatch
    assert header.isascii()
    assert b"\n" not in header


@given(st.binary(max_size=60))
def test_any_header_value_is_decoded_or_a_value_error(value: bytes) -> None:
    """Arbitrary bytes raise ValueError, unless they happen to be a dispatch."""
    with contextlib.suppress(ValueError):
        assert isinstance(Dispatch.decode(value), Dispatch)


@pytest.mark.parametrize("value", [b"", b"AAAA", b"not base64!", b"\xff\xff", b"kwE="])
def test_an_invalid_dispatch_is_a_value_error(value: bytes) -> None:
    """Empty values, nulls, other text, invalid header bytes and short lists are rejected."""
    with pytest.raises(ValueError, match=r"."):
        Dispatch.decode(value)


def test_an_incomplete_key_is_a_value_error() -> None:
    """The keys' length must be a multiple of the key size."""
    with pytest.raises(ValueError, match="key"):
        Dispatch.decode(Dispatch(id=1, keys=b"1234567").encode())
