"""What a model's engines need for their work, learned from the requests they finish.

Method: recursive least squares over two quantities, old observations forgotten exponentially.
Prefill seconds are a line over new prompt tokens (its slope is what a token costs), seconds per
output token a line over the sequences running together (its slope is what each adds to a step).
Both start from a prior that a few observations outweigh; the less x varies, the more the line keeps
of the prior's shape (ridge regression). An observation beyond three times, or below a third of,
what was expected counts as just that, so that one straggler moves little and a lasting change is
followed within some tens of requests. O(1) an observation.
"""

import math

import msgspec

from gateway.telemetry import Finished

PRIOR_PREFILL_S = 1e-4
"""Seconds per prompt token: 10,000 tokens/s."""
PRIOR_SEQUENCE_S = 2e-4
"""Seconds that one more sequence adds to a decode step."""
PRIOR_STEP_S = 0.012
"""Seconds of a step with nothing in it."""
PRIOR_TOKENS_PER_BYTE = 0.25
PRIOR_OUTPUT_TOKENS = 256.0
MEMORY = 0.94
"""What an observation counts for after one more: about the last 17 matter."""
MEAN_MEMORY = 0.98
"""The same for the mean length of answers, which varies more."""
OUTLIER = 3.0
PRIOR_OBSERVATIONS = 2
ALIKE = 0.02
"""Spread of x, as a share of its square, at which the fitted and the prior's slope count alike."""
LEAST_SLOPE = 0.1
"""Of the slope of the line through the origin: more of x never costs nothing."""


class RobustLine:
    """`y = intercept + slope * x`, both at least 0, fitted as observations come."""

    def __init__(self, intercept: float, slope: float) -> None:
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._prior = intercept, slope
        self.intercept, self.slope = intercept, slope

    def at(self, x: float) -> float:
        """What is expected at `x`."""
        return self.intercept + self.slope * x

    def observe(self, x: float, y: float) -> None:
        """Learn from one observation; outliers are pulled in."""
        expected = self.at(x)
        y = min(max(y, expected / OUTLIER), expected * OUTLIER)
        if not self._sums[0]:
            for _ in range(PRIOR_OBSERVATIONS):
                self._add(x, expected)
        self._add(x, y, MEMORY)
        self._fit()

    def _add(self, x: float, y: float, memory: float = 1.0) -> None:
        n, sum_x, sum_y, sum_xx, sum_xy = self._sums
        self._sums = (
            memory * n + 1.0,
            memory * sum_x + x,
            memory * sum_y + y,
            memory * sum_xx + x * x,
            memory * sum_xy + x * y,
        )

    def _fit(self) -> None:
        n, x, y, xx, xy = self._sums
        # Where all x are alike a slope cannot be told: it has the same share of y as the prior's.
        intercept, slope = self._prior
        slope *= y / (intercept * n + slope * x)
        spread, pull = xx - x * x / n, ALIKE * xx
        if xx:
            fitted = (xy - x * y / n + pull * slope) / (spread + pull)
            slope = max(LEAST_SLOPE * xy / xx, fitted)
        intercept = (y - slope * x) / n
        if intercept < 0:
            intercept, slope = 0.0, xy / xx
        self.intercept, self.slope = intercept, slope


class CostEstimates(msgspec.Struct, frozen=True):
    """What is known of a model's engines now."""

    prefill_s: float
    """Seconds per prompt token that is not cached."""
    sequence_s: float
    """Seconds that each running sequence adds to a decode step."""
    step_s: float
    """Seconds of a decode step beside those."""
    tokens_per_byte: float
    output_tokens: float
    """Of an answer, on average."""


class CostModel:
    """Learns one model's figures."""

    def __init__(self) -> None:
        self._prefill = RobustLine(PRIOR_STEP_S, PRIOR_PREFILL_S)
        self._decode = RobustLine(PRIOR_STEP_S, PRIOR_SEQUENCE_S)
        self._tokens = 2000 * PRIOR_TOKENS_PER_BYTE
        self._bytes = 2000.0
        self._output_tokens = PRIOR_OUTPUT_TOKENS
        self._answers = 1.0
        self.estimates = self._read()

    def learn(self, finished: Finished) -> None:
        """Take a finished request into account."""
        if finished.prompt_bytes and finished.prompt_tokens:
            self._tokens = MEAN_MEMORY * self._tokens + finished.prompt_tokens
            self._bytes = MEAN_MEMORY * self._bytes + finished.prompt_bytes
        new = finished.prompt_tokens - finished.cached_tokens
        if finished.prefill_s > 0 and new > 0:
            self._prefill.observe(new, finished.prefill_s)
        if finished.completion_tokens > 1 and finished.decode_s > 0:
            per_token = finished.decode_s / (finished.completion_tokens - 1)
            self._decode.observe(finished.running, per_token)
        if not finished.is_aborted and finished.completion_tokens:
            self._output_tokens = MEAN_MEMORY * self._output_tokens + finished.completion_tokens
            self._answers = MEAN_MEMORY * self._answers + 1
        self.estimates = self._read()

    def output_tokens(self, max_tokens: int | None) -> float:
        """Tokens that an answer is likely to have."""
        return min(self.estimates.output_tokens, math.inf if max_tokens is None else max_tokens)

    def _read(self) -> CostEstimates:
        return CostEstimates(
            prefill_s=self._prefill.slope,
            sequence_s=self._decode.slope,
            step_s=self._decode.intercept,
            tokens_per_byte=self._tokens / self._bytes,
            output_tokens=self._output_tokens / self._answers,
        )
