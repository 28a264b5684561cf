"""Host that Serve's HTTP servers listen on; in a replica, Ray 2.60 has no public name for it."""

from deployments.serve_internals.fallback import GONE, warn_once
from gateway.config.loopback import ANY_HOST, is_loopback


def listens_on_loopback() -> bool:
    """Whether Serve's HTTP servers can be reached from this machine only.

    False if that is unknown: clients and operators then need keys.
    """
    try:
        from ray.serve.context import _get_global_client

        host = _get_global_client().http_config.host
    except GONE as error:
        warn_once("Serve's HTTP host", "it is assumed to be reachable from outside", repr(error))
        return False
    return is_loopback(host or ANY_HOST)
