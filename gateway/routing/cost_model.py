"""Cost model: how long a model's engines take for their work, learned from finished requests.

Method: recursive least squares with exponential forgetting, over two lines. Prefill seconds are a
line over new prompt tokens (its slope is the cost of a token); seconds per output token are a line
over the sequences running together (its slope is what each adds to a step). Both start from a prior
that a few observations outweigh; the less x varies, the more the line keeps of the prior's shape
(ridge regression). Observations are clipped to between a third of and three times what was
expected, so that one straggler moves little, and a lasting change is followed within some tens of
requests.

Source: recursive least squares with a forgetting factor; ridge regression. Cost: O(1) an
observation.
"""

import math

import msgspec

from gateway.telemetry import Finished

PRIOR_PREFILL_S = 1e-4
"""Seconds per prompt token: 10,000 tokens/s."""
PRIOR_SEQUENCE_S = 2e-4
"""Seconds that one more sequence adds to a decode step."""
PRIOR_STEP_S = 0.012
"""Seconds of an empty step."""
PRIOR_TOKENS_PER_BYTE = 0.25
PRIOR_OUTPUT_TOKENS = 256.0
DECAY = 0.94
"""Factor by which each observation fades with every later one: about the last 17 matter."""
MEAN_DECAY = 0.98
"""The same for the mean length of answers, which varies more."""
MAX_SURPRISE = 3.0
"""Factor by which an observation may differ from what was expected."""
PRIOR_OBSERVATIONS = 2
RIDGE = 0.02
"""Spread of x, as a share of its square, at which fitted and prior slope count equally."""
MIN_SLOPE_SHARE = 0.1
"""Least slope, as a share of the slope of the line through the origin: more x always costs more."""


class RobustLine:
    """Line `y = intercept + slope * x`, fitted to observations; neither parameter is negative."""

    def __init__(self, intercept: float, slope: float) -> None:
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._prior = intercept, slope
        self.intercept, self.slope = intercept, slope

    def at(self, x: float) -> float:
        """Return the expected value at `x`."""
        return self.intercept + self.slope * x

    def observe(self, x: float, y: float) -> None:
        """Learn from one observation; an outlier is clipped."""
        expected = self.at(x)
        y = min(max(y, expected / MAX_SURPRISE), expected * MAX_SURPRISE)
        if not self._sums[0]:
            for _ in range(PRIOR_OBSERVATIONS):
                self._add(x, expected)
        self._add(x, y, DECAY)
        self._fit()

    def _add(self, x: float, y: float, decay: float = 1.0) -> None:
        n, sum_x, sum_y, sum_xx, sum_xy = self._sums
        self._sums = (
            decay * n + 1.0,
            decay * sum_x + x,
            decay * sum_y + y,
            decay * sum_xx + x * x,
            decay * sum_xy + x * y,
        )

    def _fit(self) -> None:
        n, x, y, xx, xy = self._sums
        # If all x are alike, no slope can be fitted: it gets the same share of y as the prior's.
        intercept, slope = self._prior
        slope *= y / (intercept * n + slope * x)
        spread, pull = xx - x * x / n, RIDGE * xx
        if xx:
            fitted = (xy - x * y / n + pull * slope) / (spread + pull)
            slope = max(MIN_SLOPE_SHARE * xy / xx, fitted)
        intercept = (y - slope * x) / n
        if intercept < 0:
            intercept, slope = 0.0, xy / xx
        self.intercept, self.slope = intercept, slope


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
        self._tokens = 2000 * PRIOR_TOKENS_PER_BYTE
        self._bytes = 2000.0
        self._output_tokens = PRIOR_OUTPUT_TOKENS
        self._answers = 1.0
        self.estimates = self._estimate()

    def learn(self, finished: Finished) -> None:
        """Learn from a finished request."""
        if finished.prompt_bytes and finished.prompt_tokens:
            self._tokens = MEAN_DECAY * self._tokens + finished.prompt_tokens
            self._bytes = MEAN_DECAY * self._bytes + finished.prompt_bytes
        new = finished.prompt_tokens - finished.cached_tokens
        if finished.prefill_s > 0 and new > 0:
            self._prefill.observe(new, finished.prefill_s)
        if finished.completion_tokens > 1 and finished.decode_s > 0:
            per_token = finished.decode_s / (finished.completion_tokens - 1)
            self._decode.observe(finished.running, per_token)
        if not finished.is_aborted and finished.completion_tokens:
            self._output_tokens = MEAN_DECAY * self._output_tokens + finished.completion_tokens
            self._answers = MEAN_DECAY * self._answers + 1
        self.estimates = self._estimate()

    def output_tokens(self, max_tokens: int | None) -> float:
        """Return the expected length of an answer, limited by the client's `max_tokens`."""
        return min(self.estimates.output_tokens, math.inf if max_tokens is None else max_tokens)

    def _estimate(self) -> CostEstimates:
        return CostEstimates(
            prefill_s=self._prefill.slope,
            sequence_s=self._decode.slope,
            step_s=self._decode.intercept,
            tokens_per_byte=self._tokens / self._bytes,
            output_tokens=self._output_tokens / self._answers,
        )
