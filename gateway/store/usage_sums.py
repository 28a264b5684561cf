"""Sums of the ledger by period, as the admin API asks for them.

They come from the roll-ups, so a question costs as much as its answer has rows. Without a group,
all of a period is one row.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import sqlalchemy as sa

from gateway.store.tables import ROLL_UPS, SUMS, idle_costs

Group = Literal["project_id", "user_id", "api_key_id", "model", "batch", "service_tier"]
BATCH_TIER = "flex"


class UsageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests count; an empty list stands for all."""

    endpoints: Sequence[str] = ()
    """Paths."""
    excluded_endpoints: Sequence[str] = ()
    project_ids: Sequence[str] = ()
    user_ids: Sequence[str] = ()
    api_key_ids: Sequence[str] = ()
    models: Sequence[str] = ()
    """Names of models or adapters: of what has answered."""
    is_batch: bool | None = None


class Periods(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive periods of one length."""

    width_s: int
    """60, 3600 or 86400."""
    from_s: int
    """Beginning of the first one, a multiple of their length."""
    to_s: int
    """End of the last one."""

    def __iter__(self) -> Iterator[int]:
        """The beginnings of all periods."""
        return iter(range(self.from_s, self.to_s, self.width_s))


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of one period and group."""

    at_s: int
    groups: dict[str, str | bool | None]
    """What it is the sum for, by the names of the groups."""
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    attempts: int = 0
    estimated: int = 0
    wasted_prompt_tokens: int = 0
    wasted_completion_tokens: int = 0
    device_us: int = 0
    cost_nano: int = 0
    device_cost_nano: int = 0
    wasted_nano: int = 0


def usage_sums(
    connection: sa.Connection,
    periods: Periods,
    groups: Sequence[Group] = (),
    wanted: UsageFilter = UsageFilter(),  # noqa: B008 - it is frozen
) -> list[UsageSum]:
    """Sums by period and group, in order; periods and groups without requests have none."""
    table = ROLL_UPS[periods.width_s]
    keys = {group: _column(table, group).label(f"by_{group}") for group in groups}
    sums = [sa.func.sum(table.c[name]).label(name) for name in SUMS]
    query = sa.select(table.c.at_s, *keys.values(), *sums)
    query = query.where(*_conditions(table, periods, wanted))
    # By their labels: PostgreSQL takes an expression with parameters for another one each time.
    order = [table.c.at_s, *(sa.literal_column(f'"by_{group}"') for group in groups)]
    rows = connection.execute(query.group_by(*order).order_by(*order)).mappings()
    return [
        UsageSum(
            at_s=row["at_s"],
            groups={group: _group_value(group, row[f"by_{group}"]) for group in groups},
            **{name: int(row[name] or 0) for name in SUMS},
        )
        for row in rows
    ]


def idle_nano(
    connection: sa.Connection, periods: Periods, project_ids: Sequence[str] = ()
) -> dict[tuple[int, str], int]:
    """Costs of devices that were held and not used, by period and project."""
    table = idle_costs.c
    at_s = (table.at_s - table.at_s % periods.width_s).label("period_s")
    query = sa.select(at_s, table.project, sa.func.sum(table.cost_nano).label("nano"))
    query = query.where(table.at_s >= periods.from_s, table.at_s < periods.to_s)
    if project_ids:
        query = query.where(table.project.in_(project_ids))
    query = query.group_by(sa.literal_column('"period_s"'), table.project)
    return {(row.period_s, row.project): int(row.nano or 0) for row in connection.execute(query)}


def _conditions(
    table: sa.Table, periods: Periods, wanted: UsageFilter
) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [
        table.c.at_s >= periods.from_s,
        table.c.at_s < periods.to_s,
    ]
    found += [
        column.in_(values)
        for column, values in (
            (table.c.endpoint, wanted.endpoints),
            (table.c.project, wanted.project_ids),
            (table.c.user, wanted.user_ids),
            (table.c.key, wanted.api_key_ids),
            (_column(table, "model"), wanted.models),
        )
        if values
    ]
    if wanted.excluded_endpoints:
        found.append(table.c.endpoint.not_in(wanted.excluded_endpoints))
    if wanted.is_batch is not None:
        is_batch = table.c.tier == BATCH_TIER
        found.append(is_batch if wanted.is_batch else sa.not_(is_batch))
    return found


def _column(table: sa.Table, group: Group) -> sa.ColumnElement[object]:
    column: sa.ColumnElement[object] = {
        "project_id": table.c.project,
        "user_id": table.c.user,
        "api_key_id": table.c.key,
        "model": sa.func.coalesce(sa.func.nullif(table.c.adapter, ""), table.c.model),
        "batch": table.c.tier == BATCH_TIER,
        "service_tier": table.c.tier,
    }[group]
    return column


def _group_value(group: Group, value: object) -> str | bool | None:
    if group == "batch":
        return bool(value)
    return str(value) if value else None
