"""Tier of a request: what its client asks for, and what it gets."""

from collections.abc import Collection, Mapping

import msgspec

from gateway.errors.request import InvalidRequest
from gateway.identity.project import Tier
from gateway.request.raw_fields import ABSENT

FIELD = "service_tier"
BATCH_TIER: Tier = "flex"
DEFAULT_TIER: Tier = "default"
_ASKED: Mapping[str | None, Tier | None] = {
    None: None,
    "auto": None,
    "scale": None,
    "standard_only": DEFAULT_TIER,
    "default": DEFAULT_TIER,
    "flex": BATCH_TIER,
    "priority": "priority",
}
"""Tier that a value of the field asks for; None: whatever there is. `standard_only` is Anthropic's
word, and `scale` a tier of OpenAI's that the gateway does not have."""
_decoder = msgspec.json.Decoder(str | None)


def asked_tier(field: msgspec.Raw) -> Tier | None:
    """The tier that a request asks for in its body; None if it does not care.

    Raises:
        InvalidRequest: there is no such tier.
    """
    if field is ABSENT:
        return None
    try:
        return _ASKED[_decoder.decode(field)]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        known = ", ".join(f"`{name}`" for name in _ASKED if name)
        raise InvalidRequest(f"`{FIELD}` must be one of {known}.", FIELD) from None


def served_tier(asked: Tier | None, allowed: Collection[Tier]) -> Tier:
    """The tier that a request gets: the one that it asks for, if its project may have that.

    Otherwise the default tier, as OpenAI does it; of a project without that, the first of its own.
    """
    if asked is not None and asked in allowed:
        return asked
    return DEFAULT_TIER if DEFAULT_TIER in allowed else next(iter(allowed), DEFAULT_TIER)
