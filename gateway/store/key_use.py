"""When keys were used last."""

from collections.abc import Mapping

import sqlalchemy as sa

from gateway.store.tables import admin_keys, api_keys


def record_key_use(connection: sa.Connection, used: Mapping[str, int]) -> None:
    """Note when API keys were used, in Unix seconds; unknown ones and earlier times change nothing.

    A key that is used often is noted once a minute.
    """
    _record(connection, api_keys, used)


def record_admin_key_use(connection: sa.Connection, key_id: str, at_s: int) -> None:
    """Note when an admin key was used."""
    _record(connection, admin_keys, {key_id: at_s})


PRECISION_S = 60


def _record(connection: sa.Connection, table: sa.Table, used: Mapping[str, int]) -> None:
    if not used:
        return
    last, at_s = table.c.last_used_s, sa.bindparam("at_s", type_=sa.BigInteger)
    statement = (
        table.update()
        .where(table.c.id == sa.bindparam("key_id"))
        .where(sa.or_(last.is_(None), last <= at_s - PRECISION_S))
        .values(last_used_s=at_s)
    )
    rows = [{"key_id": key_id, "at_s": when} for key_id, when in sorted(used.items())]
    connection.execute(statement, rows)
