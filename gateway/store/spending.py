"""What projects and keys have spent in the current day or month of UTC's calendar."""

import sqlalchemy as sa

from gateway.ledger.calendar import Interval, period_start_s
from gateway.store.tables import usage_days


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
