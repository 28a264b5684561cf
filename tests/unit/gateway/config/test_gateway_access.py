"""Fields of the gateway config about who is let in and who is believed."""

import pytest

from gateway.config.gateway import GatewayConfig
from gateway.config.loader import parse_gateway
from gateway.errors.startup import ConfigError


def test_trusted_proxies_are_addresses_and_networks() -> None:
    """Of both versions of IP."""
    config = parse_gateway({"trusted_proxies": ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]})

    assert config.trusted_proxies == ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]
    assert (GatewayConfig().trusted_proxies, GatewayConfig().open_on_loopback) == ([], False)


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "lb.example", "", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(wrong: str) -> None:
    """With the field, the value and an example."""
    with pytest.raises(ConfigError) as caught:
        parse_gateway({"trusted_proxies": ["10.0.0.0/8", wrong]})

    assert "trusted_proxies: must be addresses or networks such as 10.0.0.0/8" in str(caught.value)
