"""Limits of one request, told to vLLM in its own environment variables."""

import os


def set_request_limits(sequences: int, prompts: int) -> None:
    """Have vLLM refuse what the router refuses, too; before vLLM starts.

    `sequences`: of a prompt; by itself, vLLM 0.32 takes 16,384. `prompts`: of a completion.
    """
    os.environ["VLLM_MAX_N_SEQUENCES"] = str(sequences)
    os.environ["VLLM_MAX_COMPLETION_PROMPTS"] = str(prompts)
