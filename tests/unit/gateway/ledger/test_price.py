"""Costs are whole nano-units, rounded once for each request, by the price in force at its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.price import MILLION, Price, PriceList, rounded

OLD = Price(model="m", from_s=0, input_nano=1_000_000_000, output_nano=2_000_000_000)
NEW = Price(model="m", from_s=1_000, input_nano=500_000_000, cached_input_nano=50_000_000)
TUNED = Price(model="tuned", from_s=0, input_nano=7)


def test_the_price_in_force_at_the_end_counts() -> None:
    """An adapter without a price costs what its model does."""
    prices = PriceList([NEW, OLD, TUNED])
    assert prices.at("m", "", 999.9) is OLD
    assert prices.at("m", "other", 1_000) is NEW
    assert prices.at("m", "tuned", 5) is TUNED
    assert prices.at("unknown", "", 5).tokens_nano(10, 0, 10) == 0


def test_a_price_that_was_found_before_ends_with_its_time() -> None:
    """So does that of an adapter, at whatever moment it was asked for first, and the other way."""
    tuned_later = Price(model="tuned", from_s=2_000, input_nano=8)
    prices = PriceList([NEW, OLD, tuned_later])
    for _ in range(2):
        assert prices.at("m", "", 999.9) is OLD
        assert prices.at("m", "", 1_000) is NEW
        assert prices.at("m", "tuned", 999.9) is OLD
        assert prices.at("m", "tuned", 1_999) is NEW
        assert prices.at("m", "tuned", 2_000) is tuned_later


def test_cached_tokens_have_a_price_of_their_own() -> None:
    """Without one they cost as much as others."""
    assert OLD.tokens_nano(100, 60, 10) == 100 * 1_000 + 10 * 2_000
    assert NEW.tokens_nano(100, 60, 10) == 40 * 500 + 60 * 50


def test_an_hour_of_a_device_costs_its_price() -> None:
    """Parts of it are rounded to whole nano-units."""
    price = Price(model="m", from_s=0, gpu_hour_nano=3_600_000_000)
    assert price.device_nano(3_600 * MILLION) == 3_600_000_000
    assert price.device_nano(1) == 1
    assert not price.has_tokens


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (4, 0), (5, 1), (14, 1), (15, 2)])
def test_halves_are_rounded_up(value: int, expected: int) -> None:
    """The nearest whole number."""
    assert rounded(value, 10) == expected


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**12))
def test_rounding_is_off_by_half_a_unit_at_most(prompt: int, answer: int, nano: int) -> None:
    """Also for amounts that no floating-point number can hold."""
    price = Price(model="m", from_s=0, input_nano=nano, output_nano=nano)
    exact = (prompt + answer) * nano
    assert abs(price.tokens_nano(prompt, 0, answer) * MILLION - exact) * 2 <= MILLION
