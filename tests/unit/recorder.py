"""Recorder of metrics that keeps all values."""

from collections import Counter as Tally
from collections import defaultdict

from gateway.metrics import Counter, Gauge, Histogram, Labels, Metric

Key = tuple[str, tuple[str, ...]]
"""A metric's name and the values of its labels."""


class KeptRecorder:
    """Values of counters and gauges, and all observations."""

    def __init__(self) -> None:
        self.counts: Tally[Key] = Tally()
        self.gauges: dict[Key, float] = {}
        self.flushes = 0
        self.observations: dict[Key, list[float]] = defaultdict(list)

    def count(self, metric: Counter, labels: Labels, amount: float = 1.0) -> None:
        """Increase a counter."""
        self.counts[_key(metric, labels)] += amount  # type: ignore[assignment] # of a float

    def set(self, metric: Gauge, labels: Labels, value: float) -> None:
        """Set a gauge."""
        self.gauges[_key(metric, labels)] = value

    def observe(self, metric: Histogram, labels: Labels, value: float) -> None:
        """Add one observation."""
        self.observations[_key(metric, labels)].append(value)

    def flush(self) -> None:
        """Count the call."""
        self.flushes += 1


def _key(metric: Metric, labels: Labels) -> Key:
    assert len(labels) == len(metric.labels), f"{metric.name} has the labels {metric.labels}"
    assert all(isinstance(label, str) for label in labels)
    return metric.name, tuple(labels)
