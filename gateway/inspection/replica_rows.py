"""Rows of engine replicas: as one router sees each, and as all routers together do."""

from collections.abc import Iterable
from dataclasses import asdict

from gateway.faults import ReplicaFaults
from gateway.inspection.query import Row
from gateway.routing.recent_tokens import WINDOW_S
from gateway.routing.replica_health import HealthState
from gateway.routing.replica_state import ReplicaState
from gateway.serving.pool import ModelPool

WORST_FIRST = (
    HealthState.NOT_RESPONDING,
    HealthState.EJECTED,
    HealthState.BACKOFF,
    HealthState.NO_TELEMETRY,
    HealthState.DRAINING,
    HealthState.READY,
)
VIEW = ("router", "state", "requests", "queued", "errors", "last_error")
"""Fields that each router has of its own; the others come from the replica's telemetry."""


def replica_row(pool: ModelPool, state: ReplicaState, faults: ReplicaFaults) -> Row:
    """One replica, as one router sees it."""
    replica, load, facts = state.replica, state.load, state.replica.metadata.facts
    replicas = pool.scheduler.replicas
    return {
        "replica": replica.id,
        "model": pool.model.name,
        "engine": facts.engine,
        "node": replica.node_id,
        "address": f"{replica.metadata.host}:{replica.metadata.port}",
        "pid": replica.metadata.pid,
        "state": replicas.health(replica),
        "requests": state.requests_sent,
        "queued": state.requests_queued,
        "running": load.running,
        "waiting": load.waiting,
        "pending_tokens": load.pending_tokens,
        "max_sequences": facts.max_sequences,
        "kv_tokens": facts.kv_tokens,
        "free_kv_tokens": load.free_tokens if state.has_load else None,
        "recent": {"seconds": WINDOW_S, **asdict(state.recent_tokens)},
        "prefixes": replicas.prefix_index.held_keys(replica.id),
        "adapters": replica.adapters.loaded,
        "broken_adapters": replica.adapters.broken,
        "start_s": round(replica.metadata.start_s, 1),
        "errors": faults.count,
        "last_error": faults.last
        and {
            "at_s": round(faults.last.at_s, 3),
            "reason": faults.last.reason,
            "action": faults.last.action,
            "request": faults.last.request,
            "message": faults.last.message,
        },
    }


def merged_replicas(rows: Iterable[Row]) -> list[Row]:
    """One row for each replica, of those that all routers have of it.

    What telemetry says is taken from a router that hears it. `state` is the worst that a router
    sees; `routers` has the view of each.
    """
    by_replica: dict[object, list[Row]] = {}
    for row in rows:
        by_replica.setdefault(row["replica"], []).append(row)
    merged = [_merge(views) for views in by_replica.values()]
    return sorted(merged, key=lambda row: (str(row["model"]), str(row["replica"])))


def _merge(views: list[Row]) -> Row:
    informed = next((row for row in views if row["free_kv_tokens"] is not None), views[0])
    common = {name: value for name, value in informed.items() if name not in VIEW}
    routers = [{name: row[name] for name in VIEW} for row in views]
    return {
        **common,
        "state": min((row["state"] for row in views), key=_badness),
        "errors": sum(int(str(row["errors"])) for row in views),
        "routers": sorted(routers, key=lambda row: str(row["router"])),
    }


def _badness(state: object) -> int:
    """Place of a state among `WORST_FIRST`; one of another release comes last."""
    names = [each.value for each in WORST_FIRST]
    return names.index(str(state)) if state in names else len(names)
