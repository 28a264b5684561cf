"""Which routes a project may use."""

from gateway.config.auth import Auth
from gateway.errors.access import RouteNotAllowed
from gateway.identity.client import ClientIdentity


def may_use_route(identity: ClientIdentity, path: str, auth: Auth | None) -> bool:
    """Whether a client may use a route: one of its project's own list, or else of the config's.

    Without authentication, all may be used.
    """
    if identity.is_open:
        return True
    default = () if auth is None else auth.routes
    allowed = identity.project.routes
    return path in (default if allowed is None else allowed)


def check_route(identity: ClientIdentity, path: str, auth: Auth | None) -> None:
    """Check whether a client may use a route.

    Raises:
        RouteNotAllowed: it may not.
    """
    if not may_use_route(identity, path, auth):
        raise RouteNotAllowed(f"Your project may not use {path}.")
