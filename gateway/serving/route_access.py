"""Which routes a client may use."""

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


def check_batch_creation(identity: ClientIdentity) -> None:
    """Check whether a client may create batches, whose requests are those of the project itself.

    Raises:
        RouteNotAllowed: its key may do less than its project.
    """
    project = identity.project
    limited = {limit.key for limit in project.rate_limits}
    limited |= {limit.key for limit in project.spend_limits}
    if identity.models is not None or identity.key in limited:
        raise RouteNotAllowed("A key with models or limits of its own cannot create batches.")
