"""Fallback policy: the step after the failure of one model of a chain, as a pure function."""

from enum import Enum, auto

from gateway.errors.access import CacheNotPrivate
from gateway.errors.gateway_error import GatewayError
from gateway.errors.limits import Overloaded
from gateway.errors.request import AdapterBroken, ContextExceeded, ModelNotFound, UnsupportedRoute
from gateway.errors.upstream import ModelUnavailable, UpstreamFailed

PERMANENT = (ModelNotFound, UnsupportedRoute, CacheNotPrivate)
"""Errors that would be the same at another time."""
FALLS_BACK = (
    *PERMANENT,
    *(ModelUnavailable, AdapterBroken, Overloaded, UpstreamFailed, ContextExceeded),
)
"""Errors for which another model may answer."""


class FallbackDecision(Enum):
    """Step that follows the failure of a model."""

    NEXT_MODEL = auto()
    """Let the next model of the chain answer."""
    RAISE = auto()
    """Send the client this error."""
    RAISE_EARLIER = auto()
    """Send the client the last error that is not permanent."""


def fallback_decision(
    error: GatewayError, *, is_last: bool, has_begun: bool, has_earlier: bool
) -> FallbackDecision:
    """The step after the error of a model; pure.

    `is_last`: no other model may answer. `has_begun`: the client has some of an answer already.
    `has_earlier`: an earlier model of the chain failed with an error that is not permanent.
    """
    if has_begun or not _may_fall_back(error):
        return FallbackDecision.RAISE
    if not is_last:
        return FallbackDecision.NEXT_MODEL
    if is_permanent(error) and has_earlier:
        return FallbackDecision.RAISE_EARLIER
    return FallbackDecision.RAISE


def _may_fall_back(error: GatewayError) -> bool:
    if isinstance(error, UpstreamFailed):
        return error.may_fall_back
    return isinstance(error, FALLS_BACK)


def is_permanent(error: GatewayError) -> bool:
    """Whether the error would be the same at another time."""
    return isinstance(error, PERMANENT)
