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


def test_only_our_own_proxy_is_believed_about_clients() -> None:
    """Without `gateway-haproxy` in front a client can write what it likes into the header."""
    named = {"RAY_SERVE_HAPROXY_BINARY_PATH": "/usr/local/bin/gateway-haproxy"}
    on = {"RAY_SERVE_ENABLE_HA_PROXY": "1"}

    assert Settings.read({**on, **named}).names_clients
    assert not Settings.read(on).names_clients
    assert not Settings.read(named).names_clients
