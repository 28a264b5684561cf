"""What routers need of the ledger: spend in the current periods, and the last minutes."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Label,
    Select,
    Table,
    case,
    func,
    literal_column,
    select,
)

from gateway.identity.client import TOKEN_MARK
from gateway.ledger.calendar import Interval, period_end_s, period_start_s
from gateway.ledger.view import BatchUsage, MinuteUsage, Spend
from gateway.store.tables import usage_days, usage_minutes

MINUTES = 2
"""Whole minutes before the current one."""
BY_KEY: ColumnElement[str] = literal_column('"by_key"')
"""PostgreSQL takes an expression with parameters for another one each time: so by its label."""


def read_spend(connection: Connection, now_s: float) -> tuple[Spend, ...]:
    """Spend of each project and key today and this month, in UTC; the project's own sum first.

    Only of keys that may have limits, here and below.
    """
    return (*_spend(connection, "day", now_s), *_spend(connection, "month", now_s))


def read_minutes(connection: Connection, now_s: float) -> tuple[MinuteUsage, ...]:
    """Usage of the last minutes and the current one, by project, key and model."""
    columns = usage_minutes.c
    from_s = (int(now_s) // 60 - MINUTES) * 60
    groups = (columns.at_s, columns.project, columns.model, columns.adapter)
    names = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
    query = _sums_by_key(usage_minutes, groups, names).where(columns.at_s >= from_s)
    return tuple(
        MinuteUsage(
            minute_s=row.at_s,
            project=row.project,
            key=row.by_key,
            model=row.adapter or row.model,
            requests=int(row.requests),
            prompt_tokens=int(row.prompt_tokens),
            cached_tokens=int(row.cached_tokens),
            completion_tokens=int(row.completion_tokens),
        )
        for row in connection.execute(query)
    )


def read_batch(connection: Connection, now_s: float) -> tuple[BatchUsage, ...]:
    """Tokens of batch requests today, in UTC, by project, key and model."""
    columns = usage_days.c
    groups = (columns.project, columns.model, columns.adapter)
    names = ("prompt_tokens", "cached_tokens", "completion_tokens")
    query = _sums_by_key(usage_days, groups, names).where(
        columns.at_s == period_start_s("day", now_s),
        columns.tier == "flex",
        columns.project != "",
    )
    return tuple(
        BatchUsage(
            project=row.project,
            key=row.by_key,
            model=row.adapter or row.model,
            prompt_tokens=int(row.prompt_tokens),
            cached_tokens=int(row.cached_tokens),
            completion_tokens=int(row.completion_tokens),
        )
        for row in connection.execute(query)
    )


def _sums_by_key(
    table: Table, groups: Sequence[ColumnElement[Any]], names: Iterable[str]
) -> Select[Any]:
    """Sums of columns by groups of columns and by the key, in this order."""
    return (
        select(
            *groups,
            _limited_key(table.c.key),
            *(func.sum(table.c[name]).label(name) for name in names),
        )
        .group_by(*groups, BY_KEY)
        .order_by(*groups, BY_KEY)
    )


def _limited_key(key: ColumnElement[str]) -> Label[str]:
    """A key that may have limits; empty for people with tokens, who have none and may be many."""
    return case((key.contains(TOKEN_MARK), ""), else_=key).label("by_key")


def _spend(connection: Connection, interval: Interval, now_s: float) -> list[Spend]:
    columns = usage_days.c
    from_s, to_s = period_start_s(interval, now_s), period_end_s(interval, now_s)
    query = _sums_by_key(usage_days, (columns.project,), ("cost_nano",)).where(
        columns.at_s >= from_s, columns.at_s < to_s, columns.project != ""
    )
    totals: dict[str, int] = {}
    keys: list[Spend] = []
    for row in connection.execute(query):
        nano = int(row.cost_nano)
        totals[row.project] = totals.get(row.project, 0) + nano
        if key := row.by_key:
            keys.append(
                Spend(project=row.project, key=key, interval=interval, from_s=from_s, nano=nano)
            )
    projects = [
        Spend(project=project, interval=interval, from_s=from_s, nano=nano)
        for project, nano in totals.items()
    ]
    return projects + keys
