"""The fallback policy: what follows each kind of error of a model."""

import pytest

from gateway.errors.gateway_error import GatewayError
from gateway.errors.limits import Overloaded
from gateway.errors.request import (
    AdapterBroken,
    ContextExceeded,
    InvalidRequest,
    ModelNotFound,
    UnsupportedRoute,
)
from gateway.errors.upstream import DeadlineExceeded, ModelUnavailable, StreamLost, UpstreamFailed
from gateway.serving.fallback_policy import FallbackDecision, fallback_decision, is_permanent

NEXT, RAISE, EARLIER = (
    FallbackDecision.NEXT_MODEL,
    FallbackDecision.RAISE,
    FallbackDecision.RAISE_EARLIER,
)
UNKNOWN = ModelNotFound("m")
ROUTE = UnsupportedRoute("not served")
BROKEN = AdapterBroken("a", "gone")
BUSY = Overloaded("busy", 1.0)
COLD = ModelUnavailable("cold", 1.0)
FAILED = UpstreamFailed("failed")
LONG = ContextExceeded("long")
HARMFUL = UpstreamFailed("halted")
HARMFUL.may_fall_back = False


@pytest.mark.parametrize(
    ("error", "is_last", "has_begun", "has_earlier", "step"),
    [
        *[
            (error, False, False, False, NEXT)
            for error in (UNKNOWN, ROUTE, BROKEN, BUSY, COLD, FAILED, LONG)
        ],
        # errors that another model would not mend
        (InvalidRequest("wrong"), False, False, False, RAISE),
        (DeadlineExceeded("late"), False, False, True, RAISE),
        (StreamLost("lost"), False, True, False, RAISE),
        # what may halt the engines of another model, too
        (HARMFUL, False, False, False, RAISE),
        (HARMFUL, False, False, True, RAISE),
        # what the client has read of one model is not followed by another's
        (FAILED, False, True, True, RAISE),
        # the last model has the last word
        (BUSY, True, False, False, RAISE),
        (FAILED, True, False, True, RAISE),
        (UNKNOWN, True, False, False, RAISE),
        # unless another try might change an earlier error, and never this one
        (UNKNOWN, True, False, True, EARLIER),
        (ROUTE, True, False, True, EARLIER),
        (BROKEN, True, False, True, RAISE),
    ],
)
def test_the_next_step_follows_from_the_error_and_the_chain(
    error: GatewayError, is_last: bool, has_begun: bool, has_earlier: bool, step: FallbackDecision
) -> None:
    """One row for each rule."""
    found = fallback_decision(error, is_last=is_last, has_begun=has_begun, has_earlier=has_earlier)
    assert found is step


def test_only_what_is_not_deployed_is_permanent() -> None:
    """Another try may change all other errors."""
    errors = (UNKNOWN, ROUTE, BROKEN, BUSY, COLD, FAILED, LONG)
    assert [error for error in errors if is_permanent(error)] == [UNKNOWN, ROUTE]
