"""Idle time is shared out exactly."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.idle import OPERATOR, Presence, held_us, idle_shares, split
from gateway.ledger.price import HOUR_US, MILLION


def test_a_replica_holds_its_devices_while_it_is_there() -> None:
    """Only the part within the hour counts, for each of its devices."""
    presences = [
        Presence("m", 2, 0, 3_600 * MILLION + 10),
        Presence("m", 1, 3_600 * MILLION + 5, 9_000 * MILLION),
    ]
    assert held_us(presences, 0) == {"m": 2 * HOUR_US}
    assert held_us(presences, 3_600) == {"m": 20 + HOUR_US - 5}


def test_what_is_not_used_is_shared_by_weights_or_by_use() -> None:
    """Without use and without weights it is the operator's."""
    assert idle_shares(100, {"a": 30, "b": 10}, {}) == {"a": 45, "b": 15}
    assert idle_shares(100, {"a": 40}, {"b": 1, "c": 2}) == {"b": 20, "c": 40}
    assert idle_shares(100, {}, {}) == {OPERATOR: 100}
    assert idle_shares(100, {"a": 170}, {}) == {}


@given(
    st.integers(0, 10**15),
    st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0.001, 1000), max_size=9),
)
def test_shares_add_up(amount: int, weights: dict[str, float]) -> None:
    """To the last microsecond."""
    assert sum(split(amount, weights).values()) == amount
