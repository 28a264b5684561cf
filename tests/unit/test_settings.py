"""What the environment says about how Serve runs."""

from gateway.settings import Settings


def test_both_variables_are_missed_where_they_are_not_set() -> None:
    """The router's log names what to set."""
    assert Settings.read({}).missing == [
        "RAY_SERVE_ENABLE_HA_PROXY",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED",
    ]


def test_nothing_is_missed_where_both_are_on() -> None:
    """Only `1` turns a variable on, as in Serve itself."""
    on = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}

    assert Settings.read(on).missing == []
    assert Settings.read({**on, "RAY_SERVE_ENABLE_HA_PROXY": "0"}).missing
