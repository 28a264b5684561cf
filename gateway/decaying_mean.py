"""Mean of observations in which each new one reduces the weight of all earlier ones.

Method: exponential forgetting of a sum and of its weight, so that the first observations count in
full. O(1) per observation.
"""


class DecayingMean:
    """Weighted mean; `decay` is the factor on earlier weights at each observation."""

    __slots__ = ("_decay", "_total", "_weight")

    def __init__(self, decay: float, total: float = 0.0, weight: float = 0.0) -> None:
        """Start from a prior: a mean of `total / weight` that counts for `weight`."""
        self._decay = decay
        self._total = total
        self._weight = weight

    @property
    def value(self) -> float:
        """The mean; 0 without any observation."""
        return self._total / self._weight if self._weight else 0.0

    def observe(self, total: float, weight: float = 1.0) -> None:
        """Add an observation: a sum of values, and the weight that they have together."""
        self._total = self._decay * self._total + total
        self._weight = self._decay * self._weight + weight
