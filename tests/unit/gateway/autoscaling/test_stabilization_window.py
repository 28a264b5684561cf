"""The highest of the values lately seen."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.autoscaling.stabilization_window import StabilizationWindow


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.integers(0, 60))
def test_the_peak_is_that_of_the_last_values(values: list[int], span_s: int) -> None:
    """As a list that keeps everything has it; unknown where the span is longer than the list."""
    window = StabilizationWindow()
    for now_s, value in enumerate(values):
        window.add(now_s, value)
        is_seen = now_s >= span_s
        expected = max(values[max(0, now_s - span_s) : now_s + 1]) if is_seen else None
        assert window.peak(now_s, span_s) == expected


def test_after_a_reset_nothing_has_been_seen() -> None:
    """The span has to pass again."""
    window = StabilizationWindow()
    window.add(0, 5)
    window.reset()
    window.add(10, 3)

    assert window.peak(10, 5) is None
    assert window.peak(10, 0) == 3
