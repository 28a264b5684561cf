"""Anthropic's requests, in vLLM's terms."""

from typing import Any

from pydantic import model_validator
from vllm.entrypoints.anthropic.protocol import (
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
)

from deployments.engines.vllm.api.asked_message import AskedMessage, asked_message
from deployments.engines.vllm.api.grammar_fields import of_message, record_grammar_fields
from deployments.engines.vllm.api.messages_blocks import adopt_messages, check_system
from deployments.engines.vllm.api.messages_fields import adopt_format, check_fields
from deployments.engines.vllm.api.messages_order import adopt_beginning, check_order
from deployments.engines.vllm.api.messages_tools import adopt_tools
from deployments.engines.vllm.api.refusals import missing
from deployments.engines.vllm.api.sampling import adopt_top_p


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
        adopted["asked"] = asked_message(body, is_begun=is_begun)
        record_grammar_fields(of_message(body))
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
