"""Rows of models: as one router sees each, and as all routers together do."""

from collections.abc import Iterable

from gateway.inspection.query import Row
from gateway.routing.fleet import ModelState
from gateway.routing.model_condition import model_condition
from gateway.serving.pool import ModelPool

WORST_FIRST = (
    ModelState.UNHEALTHY,
    ModelState.NOT_RESPONDING,
    ModelState.STARTING,
    ModelState.SCALED_TO_ZERO,
    ModelState.READY,
)
SUMS = ("in_flight", "queued", "awaiting_start")
"""Numbers that each router has of its own requests."""


def model_row(pool: ModelPool) -> Row:
    """One model, as one router sees it."""
    health = pool.scheduler.replicas.health_counts()
    state, reason = model_condition(pool.model, health)
    return {
        "model": pool.model.name,
        "state": state,
        "reason": reason,
        "replicas": len(pool.model.replicas),
        "replica_states": dict(health),
        "in_flight": pool.scheduler.in_flight,
        "queued": pool.admission.queued_interactive + pool.admission.queued_batch,
        "awaiting_start": pool.cold_start.waiting,
    }


def merged_models(rows: Iterable[Row]) -> list[Row]:
    """One row for each model, in the worst state that a router sees; its requests are summed up."""
    by_model: dict[object, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    return [_merge(views) for _, views in sorted(by_model.items(), key=lambda item: str(item[0]))]


def _merge(views: list[Row]) -> Row:
    worst = min(views, key=lambda row: _badness(row["state"]))
    sums = {name: sum(int(str(row[name])) for row in views) for name in SUMS}
    common = {name: value for name, value in worst.items() if name != "router"}
    return {**common, **sums}


def _badness(state: object) -> int:
    """Place of a state among `WORST_FIRST`; one of another release comes last."""
    names = [each.value for each in WORST_FIRST]
    return names.index(str(state)) if state in names else len(names)
