"""Deletion of API keys, with the limits that are theirs alone."""

import sqlalchemy as sa

from gateway.store.tables import api_keys, rate_limits, spend_limits


def delete_keys(connection: sa.Connection, now_s: int, *conditions: sa.ColumnElement[bool]) -> None:
    """Delete the keys that meet all conditions; their rows stay, their limits do not."""
    query = sa.select(api_keys.c.id).where(*conditions, api_keys.c.deleted_s.is_(None))
    ids = connection.scalars(query).all()
    if not ids:
        return
    connection.execute(api_keys.update().where(api_keys.c.id.in_(ids)).values(deleted_s=now_s))
    for table in (rate_limits, spend_limits):
        connection.execute(table.delete().where(table.c.key_id.in_(ids)))
