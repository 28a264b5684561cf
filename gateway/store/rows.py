"""Rows of the database as structs."""

from typing import TypeVar

import msgspec
import sqlalchemy as sa

from gateway.errors.administration import NotFound

RowT = TypeVar("RowT")


def row_of(row: sa.Row[tuple[object, ...]], row_type: type[RowT]) -> RowT:
    """A row of the database as a struct; columns without a field are left out."""
    # SQLAlchemy's names of columns are no plain texts.
    return msgspec.convert({str(name): value for name, value in row._asdict().items()}, row_type)


def found_row(
    connection: sa.Connection,
    table: sa.Table,
    row_type: type[RowT],
    kind: str,
    object_id: str,
    *conditions: sa.ColumnElement[bool],
) -> RowT:
    """The row with an id that meets all conditions; `kind`: what it is, for people.

    Raises:
        NotFound: there is none.
    """
    query = sa.select(table).where(table.c.id == object_id, *conditions)
    row = connection.execute(query).first()
    if row is None:
        raise NotFound.of(kind, object_id)
    return row_of(row, row_type)
