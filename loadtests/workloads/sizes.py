"""Lengths of prompts, answers and pauses: log-normal as in production, scaled and bounded."""

import random
from dataclasses import dataclass
from typing import Self

from gateway.simulation.workloads import MAX_PROMPT_TOKENS

Length = tuple[float, float, int]
"""Tokens: median, sigma (two in three are within a factor `e ** sigma`), maximum."""

PROMPT_SHARE = 0.6
"""Share of a model's context: a small model's tokenizer makes a third more tokens than we count."""
ANSWER_SHARE = 0.125
ROOMY_TOKENS = 16_000
"""Shortest prompt limit at which production's lengths need no scaling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Scales of lengths and of pauses, and the longest prompt and answer."""

    scale: float = 1.0
    think_scale: float = 1.0
    longest_prompt_tokens: int = MAX_PROMPT_TOKENS
    longest_answer_tokens: int = MAX_PROMPT_TOKENS

    @classmethod
    def fitting(
        cls, context_tokens: int | None, *, most_tokens: int, scale: float, think_scale: float
    ) -> Self:
        """Sizes that fit a context length, if known; 0 tokens or a scale of 0 mean the default."""
        context = context_tokens or round(MAX_PROMPT_TOKENS / PROMPT_SHARE)
        prompt = min(most_tokens or MAX_PROMPT_TOKENS, max(1, int(context * PROMPT_SHARE)))
        return cls(
            scale=scale or min(1.0, prompt / ROOMY_TOKENS),
            think_scale=think_scale,
            longest_prompt_tokens=prompt,
            longest_answer_tokens=max(1, int(context * ANSWER_SHARE)),
        )

    def scaled(self, tokens: float) -> int:
        """A production length in this load test."""
        return max(1, round(tokens * self.scale))

    def shared_tokens(self, tokens: int) -> int:
        """Length of a shared prefix: at most half of a prompt."""
        return max(1, min(self.scaled(tokens), self.longest_prompt_tokens // 2))

    def tokens(self, rng: random.Random, length: Length) -> int:
        """A random text length."""
        median, sigma, most = length
        return self.scaled(min(median * rng.lognormvariate(0, sigma), most))

    def answer_tokens(self, rng: random.Random, length: Length) -> int:
        """A random answer length."""
        return min(self.tokens(rng, length), self.longest_answer_tokens)

    def pause_s(self, rng: random.Random, mean_s: float, least_s: float = 0.0) -> float:
        """A random think time."""
        return (least_s + rng.expovariate(1 / (mean_s - least_s))) * self.think_scale
