"""What a request to `/v1/messages` asks for of its answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.engines.served_tier import tier_of_call
from gateway.request.service_tier import BATCH_TIER, DEFAULT_TIER

TIERS: Mapping[str, str] = {DEFAULT_TIER: "standard", BATCH_TIER: "batch"}
"""Anthropic's words for tiers, where they differ."""


@dataclass(frozen=True, slots=True)
class AskedMessage:
    """What a request asks for of its answer, as far as vLLM does not know of it."""

    tier: str = "standard"
    """Service tier that the request gets."""
    is_begun: bool = False
    """Whether the last message is the beginning of the answer."""
    hides_thinking: bool = False
    """Whether thoughts are to be left out of the answer, but for their signature."""


def asked_message(body: Mapping[str, Any], *, is_begun: bool) -> AskedMessage:
    """What a request that has been checked asks for."""
    tier = tier_of_call(body)
    thinking = body.get("thinking")
    hides_thinking = isinstance(thinking, dict) and thinking.get("display") == "omitted"
    return AskedMessage(TIERS.get(tier, tier), is_begun, hides_thinking)
