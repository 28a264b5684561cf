"""Whether a gateway can be reached from its own machine only."""

import ipaddress

ANY_HOST = "0.0.0.0"  # noqa: S104 - Serve's own default


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine's loopback for certain."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # another name, which may mean any address
