"""Service tier of the request that an engine works on."""

from collections.abc import Mapping
from typing import Any

from deployments.engines.call import current_call
from gateway.request.service_tier import BATCH_TIER, DEFAULT_TIER

_OPEN_TIERS = ("flex", "priority")
"""Tiers that everybody may ask for where nobody is authenticated."""


def tier_of_call(body: Mapping[str, Any]) -> str:
    """The tier that the router gives the request with this body."""
    call = current_call()
    dispatch = call.dispatch if call else None
    if dispatch is not None and dispatch.origin is not None:
        return dispatch.origin.tier
    if dispatch is not None and dispatch.is_batch:
        return BATCH_TIER
    asked = body.get("service_tier")
    return asked if asked in _OPEN_TIERS else DEFAULT_TIER
