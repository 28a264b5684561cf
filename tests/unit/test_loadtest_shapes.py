"""How many users a load test has as time goes by."""

import pytest

from loadtests.users.shapes import SHAPES, users_at

LENGTH_S = 100.0
PEAK = 50


def users(shape: str) -> list[int]:
    """Users at each second of a test."""
    found = [users_at(shape, second, LENGTH_S, PEAK) for second in range(int(LENGTH_S))]
    return [count for count in found if count is not None]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_its_peak_and_an_end(shape: str) -> None:
    """Never more users than wanted, at some time as many, always one, and none at the end."""
    counts = users(shape)

    assert len(counts) == LENGTH_S
    assert max(counts) == PEAK
    assert min(counts) >= 1
    assert users_at(shape, LENGTH_S, LENGTH_S, PEAK) is None


def test_steady_stays() -> None:
    """From the beginning to the end."""
    assert set(users("steady")) == {PEAK}


def test_a_ramp_goes_up() -> None:
    """Evenly, and stays at its peak for the last quarter."""
    counts = users("ramp")

    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[37] == 25
    assert set(counts[75:]) == {PEAK}


def test_a_spike_is_sudden() -> None:
    """From a fifth to the peak within a second, and back."""
    counts = users("spike")

    assert counts[39:41] == [10, 50]
    assert counts[59:61] == [50, 10]
    assert set(counts) == {10, 50}


def test_a_day_is_busiest_at_noon() -> None:
    """A fifth at midnight, and as many before noon as after it."""
    counts = users("diurnal")

    assert counts[0] == 10
    assert counts[50] == PEAK
    assert counts[1:50] == counts[:50:-1]
    assert counts[:51] == sorted(counts[:51])


def test_there_is_always_somebody() -> None:
    """A fifth of two users is still one."""
    assert users_at("spike", 0, LENGTH_S, 2) == 1
