"""Cost model: how long a model's engines take for their work, learned from finished requests.

Method: two lines fitted by robust regression (`gateway.regression`). Prefill seconds are a line
over new prompt tokens (its slope is what a token costs), seconds per output token a line over the
sequences running together (its slope is what each adds to a step). O(1) an observation.
"""

import math

import msgspec

from gateway.decaying_mean import DecayingMean
from gateway.regression import RobustLine
from gateway.telemetry.update import Finished

PRIOR_PREFILL_S = 1e-4
"""Seconds per prompt token: 10,000 tokens/s."""
PRIOR_SEQUENCE_S = 2e-4
"""Seconds that one more sequence adds to a decode step."""
PRIOR_STEP_S = 0.012
"""Seconds of an empty step."""
PRIOR_ANSWER_TOKEN_S = 4e-4
"""Seconds of an engine's time for a token of an answer, beside some 63 other sequences."""
PRIOR_TOKENS_PER_BYTE = 0.25
PRIOR_OUTPUT_TOKENS = 256.0
MEAN_MEMORY = 0.98
"""Weight of earlier observations at each new one; near 1, because answers vary much in length."""

MIN_ANSWER_SHARE = 0.25
"""Least part of a decode step that is not taken by prompts."""
MAX_PROMPT_BYTES = 8000
"""Bytes of one prompt that count for the tokens per byte: no single prompt decides for others."""


class CostEstimates(msgspec.Struct, frozen=True):
    """Current estimates of what work costs a model's engines."""

    prefill_s: float
    """Seconds per prompt token that is not cached."""
    sequence_s: float
    """Seconds that each running sequence adds to a decode step."""
    step_s: float
    """Seconds of a decode step apart from those."""
    tokens_per_byte: float
    output_tokens: float
    """Mean length of an answer."""


class CostModel:
    """Cost model of one model's engines."""

    def __init__(self) -> None:
        self._prefill = RobustLine(PRIOR_STEP_S, PRIOR_PREFILL_S)
        self._decode = RobustLine(PRIOR_STEP_S, PRIOR_SEQUENCE_S)
        prior_bytes = 2000.0
        self._tokens_per_byte = DecayingMean(
            MEAN_MEMORY, prior_bytes * PRIOR_TOKENS_PER_BYTE, prior_bytes
        )
        self._output_tokens = DecayingMean(MEAN_MEMORY, PRIOR_OUTPUT_TOKENS, 1.0)
        self._sequence_share_s = DecayingMean(MEAN_MEMORY, PRIOR_ANSWER_TOKEN_S, 1.0)
        """Time of a decode step, divided among the sequences that run."""
        self._new_per_answer = DecayingMean(MEAN_MEMORY)
        """Prompt tokens that are computed for each token of an answer."""
        self.estimates = self._estimate()
        self.answer_token_s = PRIOR_ANSWER_TOKEN_S
        """Seconds of the engine's time that a token of an answer takes."""

    def learn(self, finished: Finished) -> None:
        """Learn from a finished request."""
        if finished.prompt_bytes and finished.prompt_tokens:
            self._learn_length(finished.prompt_tokens, finished.prompt_bytes)
        new = finished.prompt_tokens - finished.cached_tokens
        if finished.prefill_s > 0 and new > 0:
            self._prefill.observe(new, finished.prefill_s)
        if finished.completion_tokens > 1 and finished.decode_s > 0:
            per_token = finished.decode_s / (finished.completion_tokens - 1)
            self._decode.observe(finished.running, per_token)
            self._sequence_share_s.observe(per_token / max(1.0, finished.running))
            self._new_per_answer.observe(max(0, new), finished.completion_tokens)
        if not finished.is_aborted and finished.completion_tokens:
            self._output_tokens.observe(finished.completion_tokens)
        self.estimates = self._estimate()
        self.answer_token_s = self._answer_token_s()

    def output_tokens(self, max_tokens: int | None) -> float:
        """Return the expected length of an answer, limited by the client's `max_tokens`."""
        return min(self.estimates.output_tokens, math.inf if max_tokens is None else max_tokens)

    def cost_s(self, new_tokens: float, answer_tokens: float) -> float:
        """Return the engine's time for so many new prompt tokens and answer tokens, in seconds."""
        return new_tokens * self.estimates.prefill_s + answer_tokens * self.answer_token_s

    def _answer_token_s(self) -> float:
        """Sequences that run together share a step, of which others' prompts take a part."""
        share_s = self._sequence_share_s.value
        prompts_s = self._new_per_answer.value * self.estimates.prefill_s
        return max(share_s - prompts_s, MIN_ANSWER_SHARE * share_s)

    def _learn_length(self, prompt_tokens: int, prompt_bytes: int) -> None:
        """Learn from a prompt's length; a token has a byte at least, apart from the template's."""
        tokens_per_byte = min(1.0, prompt_tokens / prompt_bytes)
        weight = min(prompt_bytes, MAX_PROMPT_BYTES)
        self._tokens_per_byte.observe(tokens_per_byte * weight, weight)

    def _estimate(self) -> CostEstimates:
        return CostEstimates(
            prefill_s=self._prefill.slope,
            sequence_s=self._decode.slope,
            step_s=self._decode.intercept,
            tokens_per_byte=self._tokens_per_byte.value,
            output_tokens=self._output_tokens.value,
        )
