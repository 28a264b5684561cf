"""How long prompts, answers and pauses are: log-normal as in production, scaled and bounded."""

import random
from dataclasses import dataclass
from typing import Self

from gateway.simulation.workloads import LONGEST_TOKENS

Length = tuple[float, float, int]
"""Tokens: the median, sigma (two in three are within a factor `e ** sigma`), the most."""

PROMPT_SHARE = 0.6
"""Of a model's context: a small model's tokenizer makes a third more tokens than we count."""
ANSWER_SHARE = 0.125
ROOMY_TOKENS = 16_000
"""Prompts of at least this length are what production's figures need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """A scale for all lengths, one for all pauses, and the longest prompt and answer."""

    scale: float = 1.0
    think_scale: float = 1.0
    longest_prompt_tokens: int = LONGEST_TOKENS
    longest_answer_tokens: int = LONGEST_TOKENS

    @classmethod
    def fitting(
        cls, context_tokens: int | None, *, most_tokens: int, scale: float, think_scale: float
    ) -> Self:
        """For a model of such a context, if known; a limit or a scale of 0 is chosen to fit it."""
        context = context_tokens or round(LONGEST_TOKENS / PROMPT_SHARE)
        prompt = min(most_tokens or LONGEST_TOKENS, max(1, int(context * PROMPT_SHARE)))
        return cls(
            scale=scale or min(1.0, prompt / ROOMY_TOKENS),
            think_scale=think_scale,
            longest_prompt_tokens=prompt,
            longest_answer_tokens=max(1, int(context * ANSWER_SHARE)),
        )

    def scaled(self, tokens: float) -> int:
        """A length that production has, in this load test."""
        return max(1, round(tokens * self.scale))

    def shared_tokens(self, tokens: int) -> int:
        """The length of what several prompts begin with: at most half of a prompt."""
        return max(1, min(self.scaled(tokens), self.longest_prompt_tokens // 2))

    def tokens(self, rng: random.Random, length: Length) -> int:
        """The length of some text."""
        median, sigma, most = length
        return self.scaled(min(median * rng.lognormvariate(0, sigma), most))

    def answer_tokens(self, rng: random.Random, length: Length) -> int:
        """The length of an answer."""
        return min(self.tokens(rng, length), self.longest_answer_tokens)

    def pause_s(self, rng: random.Random, mean_s: float, least_s: float = 0.0) -> float:
        """How long somebody thinks."""
        return (least_s + rng.expovariate(1 / (mean_s - least_s))) * self.think_scale
