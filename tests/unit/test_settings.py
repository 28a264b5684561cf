"""What the environment says about how Serve runs."""

import pytest

from gateway.errors import ConfigError
from gateway.settings import Settings, resolve_key


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


def test_a_key_is_taken_as_written_or_from_the_environment() -> None:
    """So that secrets need not stand in a file that is shared."""
    environ = {"ADMIN": "from the environment"}

    assert resolve_key(None, environ) is None
    assert resolve_key("as written", environ) == "as written"
    assert resolve_key("env:ADMIN", environ) == "from the environment"


@pytest.mark.parametrize("environ", [{}, {"ADMIN": ""}])
def test_a_key_that_is_not_there_stops_the_start(environ: dict[str, str]) -> None:
    """No key would be no protection."""
    with pytest.raises(ConfigError, match="'ADMIN' is not set"):
        resolve_key("env:ADMIN", environ)
