"""Pages of lists: rows by order of creation, from the one after a known id."""

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

import msgspec
import sqlalchemy as sa

from gateway.errors.request import InvalidRequest
from gateway.store.rows import row_of

RowT = TypeVar("RowT")
StructT = TypeVar("StructT", bound=msgspec.Struct)
MAX_PAGE_BYTES = 32 << 20
"""Bytes of a page whose rows are large, but for a single row."""


class Page(msgspec.Struct, Generic[RowT], frozen=True):
    """Some rows of a list, and whether more follow."""

    rows: Sequence[RowT]
    has_more: bool = False


class _Size(msgspec.Struct, frozen=True):
    """How large a row is."""

    seq: int
    size: int


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of a list."""

    after: str | None = None
    """Id of the last row of the page before."""
    before: str | None = None
    """Id of the first row of the page that follows."""
    limit: int = 20
    order: Literal["asc", "desc"] = "asc"


def page_of(
    connection: sa.Connection,
    table: sa.FromClause,
    cursor: Cursor,
    row_type: type[RowT],
    *conditions: sa.ColumnElement[bool],
    within: Sequence[sa.ColumnElement[bool]] = (),
    columns: Sequence[sa.ColumnElement[Any]] = (),
) -> Page[RowT]:
    """A page of the rows that meet all conditions.

    `within`: conditions that say which list it is; rows that only fail the others, as deleted ones
    do, remain places in it. `columns`: those to read, if not all.

    Raises:
        InvalidRequest: the id in `after` or `before` has never existed.
    """
    query = sa.select(*(columns or (table,))).where(*conditions, *within)
    # The page before a row is found backwards from it.
    is_descending = (cursor.order == "desc") != (cursor.before is not None)
    seq = table.c.seq
    for name, known in (("after", cursor.after), ("before", cursor.before)):
        if known is not None:
            place = _place(connection, table, within, name, known)
            query = query.where(seq < place if is_descending else seq > place)
    query = query.order_by(seq.desc() if is_descending else seq).limit(cursor.limit + 1)
    found = [row_of(row, row_type) for row in connection.execute(query)]
    rows = found[: cursor.limit]
    if cursor.before is not None:
        rows.reverse()
    return Page(rows, has_more=len(found) > cursor.limit)


def bounded_page_of(
    connection: sa.Connection,
    table: sa.FromClause,
    column: str,
    cursor: Cursor,
    row_type: type[StructT],
    *conditions: sa.ColumnElement[bool],
    within: Sequence[sa.ColumnElement[bool]] = (),
) -> Page[StructT]:
    """A page that ends early, at `MAX_PAGE_BYTES`; `column`: the one that makes rows large.

    Only columns are read that `row_type` has fields for.

    Raises:
        InvalidRequest: the id in `after` or `before` has never existed.
    """
    size = sa.func.length(table.c[column]).label("size")
    columns = (table.c.seq, size)
    page = page_of(connection, table, cursor, _Size, *conditions, within=within, columns=columns)
    # A page before a row is filled from that row on.
    is_backwards = cursor.before is not None
    places = _fitting(page.rows[::-1] if is_backwards else page.rows)
    fields = [table.c[each.name] for each in msgspec.structs.fields(row_type)]
    query = sa.select(table.c.seq, *fields).where(table.c.seq.in_(places))
    found = {row.seq: row_of(row, row_type) for row in connection.execute(query)}
    rows = [found[each] for each in (reversed(places) if is_backwards else places)]
    return Page(rows, has_more=page.has_more or len(places) < len(page.rows))


def _fitting(rows: Sequence[_Size]) -> list[int]:
    """Places of the first rows that fit into a page."""
    places: list[int] = []
    left = MAX_PAGE_BYTES
    for row in rows:
        left -= row.size
        if places and left < 0:
            break
        places.append(row.seq)
    return places


def _place(
    connection: sa.Connection,
    table: sa.FromClause,
    within: Sequence[sa.ColumnElement[bool]],
    name: str,
    known: str,
) -> int:
    query = sa.select(sa.func.max(table.c.seq)).where(table.c.id == known, *within)
    place = connection.execute(query).scalar()
    if place is None:
        raise InvalidRequest(f"`{name}` must be the id of an object of this list.", name)
    return int(place)
