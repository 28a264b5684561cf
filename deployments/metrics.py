"""Metrics by way of Ray, whose agent on each node exports those of all its processes."""

from ray.util import metrics as ray_metrics

from gateway.metrics import METRICS, Counter, Gauge, Histogram, Labels, Metric


class RayRecorder:
    """Every metric of `gateway.metrics`; one a process.

    A call of Ray's takes about 2 µs, so that counters' growth is added up until the next `flush`.
    """

    def __init__(self) -> None:
        self._grown: dict[tuple[Counter, Labels], float] = {}
        self._counters = {
            m: ray_metrics.Counter(m.name, m.meaning, m.labels)
            for m in METRICS
            if isinstance(m, Counter)
        }
        self._gauges = {
            m: ray_metrics.Gauge(m.name, m.meaning, m.labels)
            for m in METRICS
            if isinstance(m, Gauge)
        }
        self._histograms = {
            m: ray_metrics.Histogram(m.name, m.meaning, list(m.bounds), m.labels)
            for m in METRICS
            if isinstance(m, Histogram)
        }

    def count(self, metric: Counter, labels: Labels, amount: float = 1.0) -> None:
        """Let a counter grow."""
        key = metric, labels
        self._grown[key] = self._grown.get(key, 0.0) + amount

    def set(self, metric: Gauge, labels: Labels, value: float) -> None:
        """Say how a gauge stands."""
        self._gauges[metric].set(value, _tags(metric, labels))

    def observe(self, metric: Histogram, labels: Labels, value: float) -> None:
        """Add one observation."""
        self._histograms[metric].observe(value, _tags(metric, labels))

    def flush(self) -> None:
        """Tell Ray how counters have grown."""
        while self._grown:
            (metric, labels), amount = self._grown.popitem()
            if amount > 0:  # Ray refuses to add nothing
                self._counters[metric].inc(amount, _tags(metric, labels))


def _tags(metric: Metric, labels: Labels) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))
