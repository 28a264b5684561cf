"""Upkeep of the database: presence of replicas, costs of idle devices, and what is too old."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from gateway.ledger.calendar import DAY_S
from gateway.ledger.idle import Presence, held_us, idle_shares
from gateway.ledger.price import HOUR_US, MILLION, PriceList
from gateway.store.changes import stored_number
from gateway.store.tables import (
    ROLL_UPS,
    idle_costs,
    replicas,
    settlements,
    state,
    usage,
    usage_hours,
    watermarks,
)
from gateway.store.usage import upsert

HOUR_S = 3_600
PRESENCE_DAYS = 7
"""How long the presence of replicas is kept: their hours have been settled by then."""
IDLE = "idle"
"""Name of the last hour whose idle time has been shared out."""
DELETED_ROWS = 5_000
"""Most rows that one transaction deletes: others wait meanwhile."""


class ReplicaSeen(msgspec.Struct, frozen=True):
    """A replica that holds its devices now."""

    engine: str
    model: str
    devices: int


class KeptDays(msgspec.Struct, frozen=True):
    """How many days each kind of row is kept."""

    requests: int
    minutes: int
    hours: int
    days: int


def record_presence(connection: Connection, seen: Iterable[ReplicaSeen], now_us: int) -> None:
    """Record that replicas are there; from the first time to the last they held their devices."""
    rows = [
        {
            "engine": each.engine,
            "model": each.model,
            "devices": each.devices,
            "first_us": now_us,
            "last_us": now_us,
        }
        for each in seen
    ]
    if rows:
        statement = upsert(connection, replicas)
        statement = statement.on_conflict_do_update(
            index_elements=["engine"], set_={"last_us": statement.excluded.last_us}
        )
        connection.execute(statement, rows)


def share_idle_until(
    connection: Connection,
    hour_s: int,
    hours: int,
    weights: Mapping[str, float],
    prices: PriceList,
) -> None:
    """Share out the idle time of the last `hours` anew, and of all that were missed since then.

    After a long outage, it begins where it stopped; at most with the oldest presence that is kept.
    """
    done_s = stored_number(connection, IDLE)
    oldest_s = hour_s - PRESENCE_DAYS * DAY_S
    first_s = max(oldest_s, min(done_s, hour_s - (hours - 1) * HOUR_S))
    for begin_s in range(first_s, hour_s + 1, HOUR_S):
        share_idle(connection, begin_s, weights, prices)
    statement = upsert(connection, state).on_conflict_do_update(
        index_elements=["name"], set_={"value": hour_s}
    )
    connection.execute(statement, {"name": IDLE, "value": hour_s})


def share_idle(
    connection: Connection, hour_s: int, weights: Mapping[str, float], prices: PriceList
) -> None:
    """Share out the idle time of one hour anew; to do it again changes nothing."""
    held = held_us(_presences(connection, hour_s), hour_s)
    used = _used(connection, hour_s)
    connection.execute(delete(idle_costs).where(idle_costs.c.at_s == hour_s))
    rows = [
        {
            "at_s": hour_s,
            "model": model,
            "project": project,
            "device_us": share_us,
            "cost_nano": prices.at(model, "", hour_s).device_nano(share_us),
        }
        for model, time_us in held.items()
        for project, share_us in idle_shares(time_us, used.get(model, {}), weights).items()
    ]
    if rows:
        connection.execute(insert(idle_costs), rows)


def delete_old(connection: Connection, kept: KeptDays, now_s: int) -> bool:
    """Delete what is older than it need be; whether there may be more to delete."""
    oldest_us = (now_s - kept.requests * DAY_S) * MILLION
    old = select(usage.c.dispatch_id).where(usage.c.ended_us < oldest_us).limit(DELETED_ROWS)
    ids = list(connection.scalars(old))
    if ids:
        connection.execute(delete(usage).where(usage.c.dispatch_id.in_(ids)))
    connection.execute(delete(settlements).where(settlements.c.at_us < oldest_us))
    for table, days in zip(ROLL_UPS.values(), (kept.minutes, kept.hours, kept.days), strict=True):
        connection.execute(delete(table).where(table.c.at_s < now_s - days * DAY_S))
    connection.execute(delete(idle_costs).where(idle_costs.c.at_s < now_s - kept.hours * DAY_S))
    gone_us = (now_s - PRESENCE_DAYS * DAY_S) * MILLION
    connection.execute(delete(replicas).where(replicas.c.last_us < gone_us))
    connection.execute(delete(watermarks).where(watermarks.c.at_us < oldest_us))
    return len(ids) == DELETED_ROWS


def _presences(connection: Connection, hour_s: int) -> Sequence[Presence]:
    columns = replicas.c
    begin_us = hour_s * MILLION
    query = select(columns.model, columns.devices, columns.first_us, columns.last_us).where(
        columns.last_us > begin_us, columns.first_us < begin_us + HOUR_US
    )
    return [Presence(*row) for row in connection.execute(query)]


def _used(connection: Connection, hour_s: int) -> dict[str, dict[str, int]]:
    """Device time by model and project in an hour, by when requests ended."""
    columns = usage_hours.c
    query = (
        select(columns.model, columns.project, func.sum(columns.device_us))
        .where(columns.at_s == hour_s)
        .group_by(columns.model, columns.project)
    )
    used: dict[str, dict[str, int]] = {}
    for model, project, time_us in connection.execute(query):
        used.setdefault(model, {})[project] = int(time_us)
    return used
