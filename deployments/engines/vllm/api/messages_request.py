"""Anthropic's requests, in vLLM's terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import model_validator
from vllm.entrypoints.anthropic.protocol import (
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
)

from deployments.engines.vllm.api.messages_blocks import adopt_messages, check_system
from deployments.engines.vllm.api.messages_fields import adopt_format, check_fields
from deployments.engines.vllm.api.messages_order import adopt_beginning, check_order
from deployments.engines.vllm.api.messages_tools import adopt_tools
from deployments.engines.vllm.api.refusals import missing
from deployments.engines.vllm.api.sampling import adopt_top_p
from deployments.engines.vllm.api.served_tier import tier_of_call
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


class MessagesRequest(AnthropicMessagesRequest):
    """A request for an answer."""

    asked: Any = None
    """What it asks for (`AskedMessage`); not a field of the body."""

    @model_validator(mode="before")
    @classmethod
    def adopt(cls, body: Any) -> Any:  # noqa: ANN401 - JSON
        """Check the body, and write it as vLLM understands it."""
        if not isinstance(body, dict):
            return body
        for name in ("messages", "max_tokens"):
            if body.get(name) is None:
                raise missing(name)
        adopted = _adopted(body)
        check_order(adopted["messages"])
        is_begun = adopt_beginning(adopted["messages"])
        tier = tier_of_call(body)
        adopted["asked"] = AskedMessage(TIERS.get(tier, tier), is_begun, _hides_thinking(body))
        adopt_top_p(adopted)
        return adopted


class CountRequest(AnthropicCountTokensRequest):
    """A request whose tokens are counted."""

    asked: Any = None
    """What it asks for (`AskedMessage`); not a field of the body."""

    @model_validator(mode="before")
    @classmethod
    def adopt(cls, body: Any) -> Any:  # noqa: ANN401 - JSON
        """Check the body, and write it as vLLM understands it."""
        if not isinstance(body, dict):
            return body
        if body.get("messages") is None:
            raise missing("messages")
        adopted = _adopted(body)
        adopted["asked"] = AskedMessage(is_begun=adopt_beginning(adopted["messages"]))
        return adopted


def _adopted(body: dict[str, Any]) -> dict[str, Any]:
    check_fields(body)
    check_system(body.get("system"))
    adopted = {**body, "messages": adopt_messages(body["messages"])}
    adopt_tools(adopted)
    adopt_format(adopted)
    return adopted


def _hides_thinking(body: dict[str, Any]) -> bool:
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("display") == "omitted"
