"""What a request to a chat or text completion asks for of the form of its answer."""

from collections.abc import Mapping
from typing import Any

from deployments.engines.served_tier import tier_of_call
from deployments.engines.vllm.api.chunks import Asked
from deployments.engines.vllm.api.tools import ToolForm

_ABOUT_TOKENS = ("return_token_ids", "stop_token_ids", "include_stop_str_in_output")
"""vLLM's own fields, whose users read its `stop_reason`."""


def asked_answer(body: Mapping[str, Any], tools: ToolForm) -> Asked:
    """The form of the answer to a request that has been checked."""
    return Asked(
        tier=tier_of_call(body),
        has_null_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        has_stop_reason=any(body.get(name) for name in _ABOUT_TOKENS),
        has_prompt_logprobs=body.get("prompt_logprobs") is not None,
        is_to_be_stored=bool(body.get("store")),
        tools=tools,
    )
