"""The time of a load test in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.users.figures import Span
from loadtests.users.pieces import LEAST_S, MOST, Pieces

LENGTHS_S = st.floats(0.001, 1e5)
PARTS = st.floats(0, 1)


@given(LENGTHS_S)
def test_pieces_are_of_one_length(seconds: float) -> None:
    """Together they are the whole time, few and not short, unless all of it is."""
    pieces = Pieces(seconds)

    assert pieces.count * pieces.length_s == pytest.approx(seconds)
    assert 1 <= pieces.count <= MOST
    assert pieces.count == 1 or pieces.length_s >= LEAST_S
    assert len(pieces.starts_s) == len(pieces.middles_s) == pieces.count


@given(LENGTHS_S, st.lists(PARTS))
def test_every_time_is_in_a_piece(seconds: float, parts: list[float]) -> None:
    """The very last one, too."""
    pieces = Pieces(seconds)

    assert sum(pieces.counts(part * seconds for part in parts)) == len(parts)
    for part in parts:
        piece = pieces.at(part * seconds)
        start_s = pieces.starts_s[piece]
        assert start_s * (1 - 1e-9) <= part * seconds <= (start_s + pieces.length_s) * (1 + 1e-9)


@given(LENGTHS_S, PARTS, PARTS)
def test_a_time_is_shared_out(seconds: float, one: float, other: float) -> None:
    """All of it, each piece what is in it; a moment belongs to one piece."""
    begin_s, end_s = sorted((one * seconds, other * seconds))
    pieces = Pieces(seconds)
    shares = dict(pieces.shares(begin_s, end_s))

    assert sum(shares.values()) == pytest.approx(1)
    for piece, share in shares.items():
        start_s = pieces.starts_s[piece]
        span = Span(begin_s=start_s, end_s=start_s + pieces.length_s)
        assert share == pytest.approx(span.share(begin_s, end_s)) or begin_s == end_s
