"""Linear regression that forgets: a line fitted to observations as they come.

Method: recursive least squares; old observations are forgotten exponentially. The line starts from
a prior that a few observations outweigh; the less x varies, the more of the prior's shape it keeps
(ridge regression). An observation more than three times the expected value, or less than a third
of it, counts as exactly that, so one straggler moves little, and a lasting change is followed
within some tens of observations. O(1) per observation.
"""

MEMORY = 0.94
"""Weight of earlier observations at each new one: about the last 17 matter."""
OUTLIER = 3.0
"""Largest ratio of an observation to the expected value, and of the expected value to it."""
PRIOR_OBSERVATIONS = 2.0
"""Observations that the prior counts for."""
RIDGE = 0.02
"""Variance of x, as a share of its mean square, at which fit and prior count the same."""
MIN_SLOPE = 0.1
"""Least slope, as a share of that through the origin: more of x is never free."""


class RobustLine:
    """Line `y = intercept + slope * x`, both at least 0, fitted to observations."""

    def __init__(self, intercept: float, slope: float) -> None:
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._prior = intercept, slope
        self.intercept, self.slope = intercept, slope

    def at(self, x: float) -> float:
        """Expected y at `x`."""
        return self.intercept + self.slope * x

    def observe(self, x: float, y: float) -> None:
        """Learn from an observation, limited to `OUTLIER` times the expected value."""
        expected = self.intercept + self.slope * x
        y = min(max(y, expected / OUTLIER), expected * OUTLIER)
        n, sum_x, sum_y, sum_xx, sum_xy = self._sums
        if not n:
            n = PRIOR_OBSERVATIONS
            sum_x, sum_y = n * x, n * expected
            sum_xx, sum_xy = sum_x * x, sum_y * x
        self._sums = (
            MEMORY * n + 1.0,
            MEMORY * sum_x + x,
            MEMORY * sum_y + y,
            MEMORY * sum_xx + x * x,
            MEMORY * sum_xy + x * y,
        )
        self._fit()

    def _fit(self) -> None:
        n, x, y, xx, xy = self._sums
        # If all x are alike, the slope is unknown: give it the same share of y as in the prior.
        intercept, slope = self._prior
        slope *= y / (intercept * n + slope * x)
        spread, pull = xx - x * x / n, RIDGE * xx
        if xx:
            fitted = (xy - x * y / n + pull * slope) / (spread + pull)
            slope = max(MIN_SLOPE * xy / xx, fitted)
        intercept = (y - slope * x) / n
        if intercept < 0:
            intercept, slope = 0.0, xy / xx
        self.intercept, self.slope = intercept, slope
