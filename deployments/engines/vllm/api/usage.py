"""OpenAI's `usage` object, of the counts that vLLM has."""

from typing import Any


def usage_object(usage: Any, *, is_completion: bool = True) -> dict[str, Any]:  # noqa: ANN401 - vLLM's
    """The object whole, as OpenAI sends it: counts that do not occur here are 0."""
    cached = getattr(usage.prompt_tokens_details, "cached_tokens", None)
    counts: dict[str, Any] = {"prompt_tokens": usage.prompt_tokens}
    if is_completion:
        counts["completion_tokens"] = usage.completion_tokens or 0
    counts["total_tokens"] = usage.total_tokens
    if is_completion:
        reasoning = getattr(usage.completion_tokens_details, "reasoning_tokens", None)
        counts["prompt_tokens_details"] = {"cached_tokens": cached or 0, "audio_tokens": 0}
        counts["completion_tokens_details"] = {
            "reasoning_tokens": reasoning or 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        }
    return counts
