"""Meters of budgets: which ones a project has, their limits, and what the ledger says of them."""

from collections.abc import Iterable

from gateway.identity.project import Project, RateLimit, SpendLimit
from gateway.ledger.calendar import period_start_s
from gateway.ledger.view import AccountsView, BatchUsage
from gateway.limits.cost import counted_tokens
from gateway.limits.period_meter import PeriodMeter


def has_budget(project: Project) -> bool:
    """Whether a project has limits of a day or month."""
    return bool(project.spend_limits) or any(
        limit.batch_tokens_per_day is not None for limit in project.rate_limits
    )


def meter_id(meter: PeriodMeter) -> tuple[str, str, str | None, str | None]:
    """What tells a meter from others of its project."""
    return meter.interval, meter.unit, meter.model, meter.key


def meters_for(project: Project) -> list[PeriodMeter]:
    """New meters for all limits of a project; each may stand for several limits."""
    name = project.name or project.id
    spend = {(limit.interval, limit.key) for limit in project.spend_limits}
    batch = {
        (limit.model, limit.key)
        for limit in project.rate_limits
        if limit.batch_tokens_per_day is not None
    }
    return [
        *(PeriodMeter(project.id, name, interval, "nano", key=key) for interval, key in spend),
        *(PeriodMeter(project.id, name, "day", "tokens", model=m, key=key) for m, key in batch),
    ]


def set_limits(meter: PeriodMeter, project: Project) -> None:
    """Give a meter the limits and alerts that its project has now."""
    meter.name = project.name or project.id
    meter.spare = 0
    if meter.unit == "tokens":
        meter.hard = min(
            limit.batch_tokens_per_day
            for limit in project.rate_limits
            if _is_for(limit, meter) and limit.batch_tokens_per_day is not None
        )
        return
    limits = [each for each in project.spend_limits if _is_for_spend(each, meter)]
    meter.hard = min((each.amount_nano for each in limits if each.is_hard), default=None)
    meter.alerts = {
        each.amount_nano: meter.alerts.get(each.amount_nano, False)
        for each in limits
        if not each.is_hard
    }


def _is_for(limit: RateLimit, meter: PeriodMeter) -> bool:
    return (limit.model, limit.key) == (meter.model, meter.key)


def _is_for_spend(limit: SpendLimit, meter: PeriodMeter) -> bool:
    return (limit.interval, limit.key) == (meter.interval, meter.key)


def apply_view(view: AccountsView, meters: Iterable[PeriodMeter], *, counts_cached: bool) -> None:
    """Tell meters what the ledger has of them."""
    counted: dict[int, int] = {}
    for mark in view.watermarks:
        counted[mark.epoch] = max(mark.seq, counted.get(mark.epoch, -1))
    spend = {(each.project, each.key, each.interval): each for each in view.spend}
    batch: dict[str, list[BatchUsage]] = {}
    for usage in view.batch:
        batch.setdefault(usage.project, []).append(usage)
    for meter in meters:
        amount, start_s = 0, period_start_s(meter.interval, view.as_of_s)
        if meter.unit == "tokens":
            amount = sum(
                counted_tokens(usage, counts_cached=counts_cached)
                for usage in batch.get(meter.project, ())
                if meter.model in {None, usage.model} and meter.key in {None, usage.key}
            )
        elif found := spend.get((meter.project, meter.key or "", meter.interval)):
            amount, start_s = found.nano, found.from_s
        meter.record_ledger(amount, start_s, counted)
