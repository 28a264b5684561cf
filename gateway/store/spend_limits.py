"""Hard spend limits in the database: one for each project, period and, perhaps, key."""

import msgspec
import sqlalchemy as sa

from gateway.errors.administration import NotFound
from gateway.ledger.calendar import Interval
from gateway.store.api_keys import api_key
from gateway.store.changes import Change
from gateway.store.projects import active_project, project
from gateway.store.rate_limits import ALL
from gateway.store.rows import row_of
from gateway.store.tables import spend_limits


class SpendLimitRow(msgspec.Struct, frozen=True, kw_only=True):
    """Most that a project, or one of its keys, may spend in a period."""

    project_id: str
    interval: Interval = "month"
    key_id: str = ALL
    amount_nano: int = 0


def spend_limit(connection: sa.Connection, place: SpendLimitRow) -> SpendLimitRow:
    """The limit at `place`, of which all but the amount counts.

    Raises:
        NotFound: there is no such project, or it has no such limit.
    """
    project(connection, place.project_id)
    found = _found(connection, place)
    if found is None:
        raise NotFound(f"The project `{place.project_id}` has no such spend limit.")
    return found


def set_spend_limit(change: Change, limit: SpendLimitRow) -> SpendLimitRow:
    """Set a limit.

    Raises:
        NotFound: there is no such project, or the project has no such key.
    """
    active_project(change.connection, limit.project_id)
    if limit.key_id != ALL:
        api_key(change.connection, limit.project_id, limit.key_id)
    before = _found(change.connection, limit)
    if before == limit:
        return limit
    change.connection.execute(spend_limits.delete().where(*_at(limit)))
    change.connection.execute(spend_limits.insert().values(**msgspec.structs.asdict(limit)))
    change.record_setting(limit.project_id, "spend_limit", before, limit)
    return limit


def delete_spend_limit(change: Change, place: SpendLimitRow) -> None:
    """Delete a limit.

    Raises:
        NotFound: there is no such project, or it has no such limit.
    """
    before = spend_limit(change.connection, place)
    change.connection.execute(spend_limits.delete().where(*_at(place)))
    change.record_setting(place.project_id, "spend_limit", before, None)


def _found(connection: sa.Connection, place: SpendLimitRow) -> SpendLimitRow | None:
    found = connection.execute(sa.select(spend_limits).where(*_at(place))).first()
    return None if found is None else row_of(found, SpendLimitRow)


def _at(row: SpendLimitRow) -> tuple[sa.ColumnElement[bool], ...]:
    table = spend_limits.c
    return (
        table.project_id == row.project_id,
        table.interval == row.interval,
        table.key_id == row.key_id,
    )
