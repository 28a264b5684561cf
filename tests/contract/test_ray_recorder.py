"""Metrics passed on to Ray: sums since the last flush."""

from collections.abc import Iterator

import pytest
import ray
from ray.util import metrics as ray_metrics

from deployments.serve_internals.metrics import RayRecorder
from gateway.metrics import IN_FLIGHT, METRICS, REQUESTS, ROUTING, Histogram

Told = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """Values of Ray's metrics, by name and label values."""
    told: Told = {}

    class Fake:
        def __init__(self, name: str, meaning: str, labels: tuple[str, ...]) -> None:
            self.name, self.labels = name, labels

        def set(self, value: float, tags: dict[str, str]) -> None:
            told[self.name, tuple(tags[label] for label in self.labels)] = value

        def inc(self, value: float, tags: dict[str, str]) -> None:
            key = self.name, tuple(tags[label] for label in self.labels)
            told[key] = told.get(key, 0.0) + value

    monkeypatch.setattr(ray_metrics, "Counter", Fake)
    monkeypatch.setattr(ray_metrics, "Gauge", Fake)
    yield told
    assert not ray.is_initialized()


def test_a_flush_increases_counters_by_what_was_counted_since(told: Told) -> None:
    """No count is passed on twice."""
    recorder, labels = RayRecorder(), ("m", "/v1", "key", "batch", "answered")
    recorder.count(REQUESTS, labels)
    recorder.count(REQUESTS, labels, 2)
    assert not told
    recorder.flush()
    recorder.flush()
    recorder.count(REQUESTS, labels)
    recorder.flush()

    assert told == {("gateway_requests", labels): 4}


def test_a_histogram_is_exported_as_prometheus_has_it(told: Told) -> None:
    """Cumulative buckets, sum and count are exact."""
    recorder = RayRecorder()
    values = [ROUTING.bounds[0], ROUTING.bounds[0] + 1e-6, 1000.0]
    for value in values:
        recorder.observe(ROUTING, ("m",), value)
    recorder.flush()

    ends = [*(repr(bound) for bound in ROUTING.bounds), "+Inf"]
    buckets = [told["gateway_routing_seconds_bucket", ("m", end)] for end in ends]
    assert buckets == [1, *[2] * (len(ROUTING.bounds) - 1), 3]
    assert told["gateway_routing_seconds_count", ("m",)] == 3
    assert told["gateway_routing_seconds_sum", ("m",)] == pytest.approx(sum(values))


def test_a_gauge_is_exported_at_once(told: Told) -> None:
    """Without a flush."""
    RayRecorder().set(IN_FLIGHT, ("m",), 3.0)

    assert told == {("gateway_in_flight", ("m",)): 3.0}


@pytest.mark.parametrize("metric", [m for m in METRICS if isinstance(m, Histogram)])
def test_bounds_ascend(metric: Histogram) -> None:
    """Otherwise observations would be counted in the wrong bucket."""
    assert list(metric.bounds) == sorted(set(metric.bounds))
