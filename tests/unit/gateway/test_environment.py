"""Environment variables: one catalogue, and the settings that a router reads."""

import re
from pathlib import Path

from gateway.environment import (
    HAPROXY_BINARY,
    LOCAL,
    OPTIONAL,
    RECOMMENDED,
    TRACING,
    Settings,
    recommended,
)

ROOT = Path(__file__).parents[3]
READ_BY_US = re.compile(r'"((?:RAY_SERVE|OTEL)_[A-Z_]+)"')


def test_missing_variables_are_named() -> None:
    """The router's log names the variables to set."""
    assert Settings.read({}).missing == [
        "RAY_SERVE_ENABLE_HA_PROXY",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED",
    ]


def test_only_1_turns_a_variable_on() -> None:
    """Any other value than `1` is off, as in Serve itself."""
    on = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}

    assert Settings.read(on).missing == []
    assert Settings.read({**on, "RAY_SERVE_ENABLE_HA_PROXY": "0"}).missing


def test_client_addresses_are_trusted_only_behind_gateway_haproxy() -> None:
    """Without `gateway-haproxy` in front, clients can write anything into the header."""
    named = {"RAY_SERVE_HAPROXY_BINARY_PATH": "/usr/local/bin/gateway-haproxy"}
    on = {"RAY_SERVE_ENABLE_HA_PROXY": "1"}

    assert Settings.read({**on, **named}).names_clients
    assert not Settings.read(on).names_clients
    assert not Settings.read(named).names_clients


def test_the_image_sets_what_is_recommended() -> None:
    """The Dockerfile's `ENV` has every recommended variable, with that value, and no others."""
    statement = re.search(
        r"^ENV (.*?[^\\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE | re.DOTALL
    )
    assert statement
    pairs = re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', statement[1])
    image = {name: quoted or plain for name, quoted, plain in pairs}

    expected = recommended("/usr/local/bin/gateway-haproxy")
    assert image == expected | {"PYTHONUNBUFFERED": "1"}


def test_every_variable_that_the_code_names_is_in_the_catalogue() -> None:
    """No other module names a variable of Serve's or OpenTelemetry's."""
    known = {each.name for each in (*RECOMMENDED, *OPTIONAL, *TRACING, *LOCAL)}
    found = {
        name
        for package in ("gateway", "deployments")
        for path in (ROOT / package).rglob("*.py")
        for name in READ_BY_US.findall(path.read_text())
    }
    traces = {name.replace("_TRACES", "") if "OTLP" in name else name for name in found}
    assert HAPROXY_BINARY in known
    assert traces <= known


def test_each_variable_is_listed_once() -> None:
    """Each is recommended, optional, for tracing, or local, and says what it does."""
    listed = [*RECOMMENDED, *OPTIONAL, *TRACING, *LOCAL]
    assert len({each.name for each in listed}) == len(listed)
    assert all(each.meaning for each in listed)


def test_every_documented_start_of_ray_asks_for_the_token() -> None:
    """Whoever copies the commands gets a cluster that others cannot enter."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    blocks = [
        block
        for page in pages
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
        if re.search(r"^ray start", block, re.MULTILINE)
    ]

    assert blocks
    assert all('eval "$(gateway env)"' in block.partition("ray start")[0] for block in blocks)
    assert recommended("")["RAY_AUTH_MODE"] == "token"
