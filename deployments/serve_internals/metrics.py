"""Recorder of metrics that Ray's agent on each node exports for all its processes.

A call of Ray's takes some microseconds, and as much of its agent's time, for every observation. So
counts and observations are summed up here until the next `flush`. A histogram is exported as
Prometheus has it: its buckets, sum and count are gauges of Ray's, which accept sums.
"""

from bisect import bisect_left
from itertools import accumulate

from ray.util import metrics as ray_metrics

from gateway.metrics import METRICS, Counter, Gauge, Histogram, Labels, Metric


class RayRecorder:
    """Recorder of all metrics of `gateway.metrics`; one per process."""

    def __init__(self) -> None:
        self._increases: dict[tuple[Counter, Labels], float] = {}
        self._observed: dict[tuple[Histogram, Labels], _Observations] = {}
        self._counters = {m: _counter(m) for m in METRICS if isinstance(m, Counter)}
        self._gauges = {m: _gauge(m) for m in METRICS if isinstance(m, Gauge)}
        self._histograms = {m: _RayHistogram(m) for m in METRICS if isinstance(m, Histogram)}

    def count(self, metric: Counter, labels: Labels, amount: float = 1.0) -> None:
        """Increase a counter."""
        key = metric, labels
        self._increases[key] = self._increases.get(key, 0.0) + amount

    def set(self, metric: Gauge, labels: Labels, value: float) -> None:
        """Set a gauge."""
        self._gauges[metric].set(value, _tags(metric, labels))

    def observe(self, metric: Histogram, labels: Labels, value: float) -> None:
        """Add one observation."""
        observed = self._observed.get((metric, labels))
        if observed is None:
            observed = self._observed[metric, labels] = _Observations(metric.bounds)
        observed.add(value)

    def flush(self) -> None:
        """Pass all counters and histograms on to Ray."""
        while self._increases:
            (metric, labels), amount = self._increases.popitem()
            if amount > 0:  # Ray rejects an increase by zero
                self._counters[metric].inc(amount, _tags(metric, labels))
        for (histogram, labels), observed in self._observed.items():
            self._histograms[histogram].set(observed, _tags(histogram, labels))


class _Observations:
    """Observations of a histogram with one set of labels."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Number in each bucket; the last one is above all bounds."""
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Add one observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class _RayHistogram:
    """Gauges of Ray's that export one histogram."""

    def __init__(self, metric: Histogram) -> None:
        self._ends = [*(repr(float(bound)) for bound in metric.bounds), "+Inf"]
        name, meaning, labels = metric.name, metric.meaning, metric.labels
        self._buckets = ray_metrics.Gauge(f"{name}_bucket", meaning, (*labels, "le"))
        self._sum = ray_metrics.Gauge(f"{name}_sum", meaning, labels)
        self._count = ray_metrics.Gauge(f"{name}_count", meaning, labels)

    def set(self, observed: _Observations, tags: dict[str, str]) -> None:
        """Set all gauges of one set of labels."""
        for end, count in zip(self._ends, accumulate(observed.counts), strict=True):
            self._buckets.set(count, tags | {"le": end})
        self._sum.set(observed.sum, tags)
        self._count.set(sum(observed.counts), tags)


def _counter(metric: Counter) -> ray_metrics.Counter:
    return ray_metrics.Counter(metric.name, metric.meaning, metric.labels)


def _gauge(metric: Gauge) -> ray_metrics.Gauge:
    return ray_metrics.Gauge(metric.name, metric.meaning, metric.labels)


def _tags(metric: Metric, labels: Labels) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))
