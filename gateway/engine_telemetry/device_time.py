"""Shares an engine's busy time out to its requests; O(1) for each of a request's events.

Method: while prompts are computed, a moment is divided between prefill and decoding as the tokens
of a step are: prompt tokens, at most those that fit into one step, against one token for each
decoding sequence. The part of decoding goes to all decoding sequences alike. The part of prefill is
collected; a request that has got its first token takes what its new tokens cost by the learned
speed, or its share among all pending tokens if that is more, and never more than there is. What is
left once no prompt is pending belongs to nobody. So the shares of all requests never add up to more
than the time in which the engine was busy. A moment in which requests only wait is not busy.
"""

DEFAULT_STEP_TOKENS = 2048
"""Tokens of a step, where an engine does not say."""


class DeviceTime:
    """Busy time of one engine, in seconds; `step_tokens`: most tokens of one step."""

    def __init__(self, step_tokens: int) -> None:
        self._step_tokens = step_tokens or DEFAULT_STEP_TOKENS
        self._until_s = 0.0
        self._prefill_tokens = self._sequences = 0
        self._collected_s = 0.0
        self.decode_s = 0.0
        """Seconds of decoding that one sequence would have got since the start, had it always been
        there: the difference between two moments is the share of a sequence."""

    def advance(self, now_s: float) -> None:
        """Share out the time until now, by the work since the last call."""
        elapsed_s, self._until_s = now_s - self._until_s, now_s
        weight = self._prefill_tokens + self._sequences
        if elapsed_s <= 0 or not weight:
            return
        self._collected_s += elapsed_s * self._prefill_tokens / weight
        if self._sequences:
            self.decode_s += elapsed_s / weight

    def set_work(self, prefill_tokens: int, sequences: int) -> None:
        """Set the work from now on: tokens of prompts being computed, and decoding sequences."""
        self._prefill_tokens = min(prefill_tokens, self._step_tokens)
        self._sequences = sequences

    def take_prefill(self, new_tokens: int, pending_tokens: int, expected_s: float) -> float:
        """Take the share of a prompt that has been computed, or is given up.

        `pending_tokens`: of all prompts that were pending, this one included. `expected_s`: what it
        costs by the learned speed.
        """
        share = new_tokens / pending_tokens if 0 < new_tokens <= pending_tokens else 1.0
        taken_s = min(self._collected_s, max(expected_s, self._collected_s * share))
        self._collected_s -= taken_s
        return taken_s

    def discard_prefill(self) -> None:
        """Forget what is left, once no prompt is pending."""
        self._collected_s = 0.0
