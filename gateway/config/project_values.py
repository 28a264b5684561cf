"""Values of a project's settings, as projects files and the admin API accept them."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway.config.route_paths import ROUTES
from gateway.config.strict import suggestion

_SCOPE = re.compile(r"project|key|all|group:[A-Za-z0-9._-]{1,64}")
MAX_NAME = 256


def _is_printable(text: str) -> str:
    """Refuse what a database or a terminal cannot hold: control characters, half characters."""
    if not text.isprintable():
        raise ValueError("must have no control characters")
    return text


def _is_scope(value: str) -> str:
    if not _SCOPE.fullmatch(value):
        raise ValueError(
            "must be `project`, `key`, `group:NAME` or `all`; a NAME has up to 64 letters, digits"
            " and any of `._-`"
        )
    return value


def _is_route(value: str) -> str:
    if value not in ROUTES:
        raise ValueError(f"is no route for inference{suggestion(value, ROUTES)}")
    return value


def _are_distinct(tiers: list[str]) -> list[str]:
    if len(set(tiers)) < len(tiers):
        raise ValueError("must have none twice")
    return tiers


Text = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_is_printable)]
"""Name, for people."""
Route = Annotated[str, AfterValidator(_is_route)]
CacheScope = Annotated[str, AfterValidator(_is_scope)]
TierName = Literal["flex", "default", "priority"]
Tiers = Annotated[list[TierName], Field(min_length=1), AfterValidator(_are_distinct)]
Weight = Annotated[float, Field(gt=0, le=1e6)]
BodyMb = Annotated[float, Field(gt=0, le=10_000)]
