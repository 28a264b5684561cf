"""Host that Serve's HTTP servers listen on; in a replica, Ray 2.60 has no public name for it."""

import ipaddress

from deployments.serve_internals.fallback import GONE, warn_once

ANY_HOST = "0.0.0.0"  # noqa: S104 - Serve's own default


def listens_on_loopback() -> bool:
    """Whether Serve's HTTP servers can be reached from this machine only.

    False if that is unknown: operators' routes then need a token.
    """
    try:
        from ray.serve.context import _get_global_client

        host = _get_global_client().http_config.host
    except GONE as error:
        warn_once("Serve's HTTP host", "it is assumed to be reachable from outside", repr(error))
        return False
    return is_loopback(host or ANY_HOST)


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine's loopback for certain."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # another name, which may mean any address
