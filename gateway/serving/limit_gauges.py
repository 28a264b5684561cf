"""Gauges and counts of projects' limits; of projects that have some alone."""

from collections.abc import Iterator

from gateway.config.accounts import NANO
from gateway.limits.meter import UNLIMITED, Meter
from gateway.limits.period_meter import PeriodMeter
from gateway.limits.project_limits import ProjectLimits
from gateway.metrics import (
    LIMIT,
    LIMIT_EXCESS,
    LIMIT_USED,
    SPEND_ALERTS,
    Gauge,
    Recorder,
)

ALL = "-"
"""Label of a limit that is for all models, or all keys."""

Reading = tuple[Gauge, tuple[str, ...], float]
"""A gauge, the values of its labels, and its value."""


def limit_readings(limits: ProjectLimits) -> Iterator[Reading]:
    """Limits and how much of each is used."""
    for meter in limits.rates.meters:
        for kind, limit, used in (
            ("requests", meter.requests, meter.used_requests),
            ("tokens", meter.tokens, meter.used_tokens),
            ("concurrent", meter.concurrent, meter.running),
        ):
            if limit < UNLIMITED:
                yield LIMIT, _labels(meter, kind), limit
                yield LIMIT_USED, _labels(meter, kind), used
    for period in limits.budgets.meters:
        limit = period.hard if period.hard is not None else max(period.alerts, default=0)
        labels, unit = _period_labels(period), NANO if period.unit == "nano" else 1
        yield LIMIT, labels, limit / unit
        yield LIMIT_USED, labels, limits.budgets.used(period) / unit


def count_limits(limits: ProjectLimits, recorder: Recorder) -> None:
    """Count what went beyond limits, and alerts, since the last call."""
    for meter in limits.rates.meters:
        for kind, amount in zip(("requests", "tokens"), meter.excess.take(), strict=True):
            if amount:
                recorder.count(LIMIT_EXCESS, _labels(meter, kind), amount)
    for (project, interval), count in limits.budgets.alerts.items():
        recorder.count(SPEND_ALERTS, (project, interval), count)
    limits.budgets.alerts.clear()


def _labels(meter: Meter, kind: str) -> tuple[str, ...]:
    model, key = meter.scope
    return meter.project, model or ALL, key or ALL, kind


def _period_labels(meter: PeriodMeter) -> tuple[str, ...]:
    kind = f"spend_{meter.interval}" if meter.unit == "nano" else "batch_tokens"
    return meter.name, meter.model or ALL, meter.key or ALL, kind
