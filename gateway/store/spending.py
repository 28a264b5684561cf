"""What projects and keys have spent in the current day or month of UTC's calendar."""

from datetime import UTC, datetime

import sqlalchemy as sa

from gateway.store.spend_limits import Interval
from gateway.store.tables import usage_days


def period_start_s(interval: Interval, now_s: float) -> int:
    """When the current day or month has begun, in Unix seconds."""
    now = datetime.fromtimestamp(now_s, UTC)
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return int((start if interval == "day" else start.replace(day=1)).timestamp())


def spent_nano(
    connection: sa.Connection, project_id: str, interval: Interval, key_id: str, now_s: float
) -> int:
    """What a project, or one of its keys, has spent since the current period's start."""
    table = usage_days.c
    query = sa.select(sa.func.sum(table.cost_nano)).where(
        table.at_s >= period_start_s(interval, now_s), table.project == project_id
    )
    if key_id:
        query = query.where(table.key == key_id)
    return int(connection.execute(query).scalar() or 0)
