"""Sampling that OpenAI's API has and vLLM refuses."""

from collections.abc import Mapping
from typing import Any

GREEDY_BELOW = 1e-5
"""Temperatures that vLLM 0.32 treats as 0."""
LEAST_TOP_P = 1e-9
"""Stands for a `top_p` of 0, which vLLM refuses: the likeliest token alone is left."""


def adopt_top_p(body: dict[str, Any]) -> None:
    """Write a `top_p` of 0 as vLLM takes it."""
    if body.get("top_p") == 0:
        body["top_p"] = LEAST_TOP_P


def sample_equally(request: Any, defaults: Mapping[str, Any]) -> None:  # noqa: ANN401 - vLLM's
    """Let `n` answers at temperature 0 be sampled, each among the likeliest token alone.

    vLLM 0.32 refuses `n` > 1 where it decodes greedily.
    """
    temperature = request.temperature
    if temperature is None:
        temperature = defaults.get("temperature", 1.0)
    if (request.n or 1) > 1 and temperature < GREEDY_BELOW:
        request.temperature, request.top_k = 1.0, 1
        request.top_p, request.min_p = 1.0, 0.0
