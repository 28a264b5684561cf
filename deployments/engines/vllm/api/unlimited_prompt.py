"""Prompts that are only counted, so that they may be longer than the context."""

from dataclasses import replace

from vllm.renderers import TokenizeParams


def unlimited(params: TokenizeParams) -> TokenizeParams:
    """How a prompt is made into tokens, however many they are."""
    return replace(
        params, max_total_tokens=None, max_output_tokens=None, truncate_prompt_tokens=None
    )
