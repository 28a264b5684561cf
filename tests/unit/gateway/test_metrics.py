"""The list of all metrics."""

from gateway import metrics
from gateway.metrics import METRICS, Counter, Gauge, Histogram


def test_every_metric_is_on_the_list() -> None:
    """Recorders know the metrics on the list; a count of any other would fail."""
    defined = [
        each for each in vars(metrics).values() if isinstance(each, Counter | Gauge | Histogram)
    ]
    assert [each.name for each in defined if each not in METRICS] == []
    assert len({each.name for each in METRICS}) == len(METRICS)
