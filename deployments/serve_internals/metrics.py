"""Metrics by way of Ray, whose agent on each node exports those of all its processes.

A call of Ray's takes some microseconds and costs its agent as much for every observation. So what
is counted and observed is added up here until the next `flush`. Histograms are told as Prometheus
knows them, their buckets, sum and count each a gauge of Ray's: only gauges take what is added up.
"""

from bisect import bisect_left
from itertools import accumulate

from ray.util import metrics as ray_metrics

from gateway.metrics import METRICS, Counter, Gauge, Histogram, Labels, Metric


class RayRecorder:
    """Every metric of `gateway.metrics`; one a process."""

    def __init__(self) -> None:
        self._grown: dict[tuple[Counter, Labels], float] = {}
        self._observed: dict[tuple[Histogram, Labels], _Observed] = {}
        self._counters = {m: _counter(m) for m in METRICS if isinstance(m, Counter)}
        self._gauges = {m: _gauge(m) for m in METRICS if isinstance(m, Gauge)}
        self._histograms = {m: _RayHistogram(m) for m in METRICS if isinstance(m, Histogram)}

    def count(self, metric: Counter, labels: Labels, amount: float = 1.0) -> None:
        """Let a counter grow."""
        key = metric, labels
        self._grown[key] = self._grown.get(key, 0.0) + amount

    def set(self, metric: Gauge, labels: Labels, value: float) -> None:
        """Say how a gauge stands."""
        self._gauges[metric].set(value, _tags(metric, labels))

    def observe(self, metric: Histogram, labels: Labels, value: float) -> None:
        """Add one observation."""
        observed = self._observed.get((metric, labels))
        if observed is None:
            observed = self._observed[metric, labels] = _Observed(metric.bounds)
        observed.add(value)

    def flush(self) -> None:
        """Tell Ray how counters have grown, and how histograms stand."""
        while self._grown:
            (metric, labels), amount = self._grown.popitem()
            if amount > 0:  # Ray refuses to add nothing
                self._counters[metric].inc(amount, _tags(metric, labels))
        for (histogram, labels), observed in self._observed.items():
            self._histograms[histogram].set(observed, _tags(histogram, labels))


class _Observed:
    """What a histogram has seen by one set of labels."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """In each bucket; the last one is what is above all bounds."""
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Add one observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class _RayHistogram:
    """The gauges that a histogram is told by."""

    def __init__(self, metric: Histogram) -> None:
        self._ends = [*(repr(float(bound)) for bound in metric.bounds), "+Inf"]
        name, meaning, labels = metric.name, metric.meaning, metric.labels
        self._buckets = ray_metrics.Gauge(f"{name}_bucket", meaning, (*labels, "le"))
        self._sum = ray_metrics.Gauge(f"{name}_sum", meaning, labels)
        self._count = ray_metrics.Gauge(f"{name}_count", meaning, labels)

    def set(self, observed: _Observed, tags: dict[str, str]) -> None:
        """Say how it stands."""
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
