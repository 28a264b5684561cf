"""Items of responses and conversations in the database: each is kept once, and referred to."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from gateway.errors.state import ObjectNotFound
from gateway.request.response_item import with_id
from gateway.store.pages import Cursor, Page, bounded_page_of
from gateway.store.response_tables import item_places, items

Part = Literal["input", "output", "item"]
MAX_IDS = 500
"""Ids in one statement: databases limit its parameters."""


class ItemRow(msgspec.Struct, frozen=True):
    """An item: JSON with its id in it."""

    id: str
    data: bytes


class HistoryTooLarge(Exception):
    """The items are larger than their reader takes."""


def add_items(
    connection: sa.Connection, project: str, owner: str, part: Part, given: Sequence[bytes]
) -> list[ItemRow]:
    """Add items at the end of a response's or conversation's; return them with their ids.

    One that is kept already, by its id, is only referred to; if it has been changed, or its owner
    has it already, it is another.

    Raises:
        InvalidRequest: one of them is no item.
    """
    made = [ItemRow(*with_id(each, f"{part}[{place}]")) for place, each in enumerate(given)]
    stored = _stored_alike(connection, project, made)
    taken = _taken(connection, project, owner, [row.id for row in made])
    rows = []
    for row in made:
        if row.id in taken or stored.get(row.id, row.data) != row.data:
            row = ItemRow(*with_id(row.data, part, is_new=True))  # noqa: PLW2901
        taken.add(row.id)
        rows.append(row)
    values = [
        {"project_id": project, "id": row.id, "data": row.data}
        for row in rows
        if row.id not in stored
    ]
    if values:
        connection.execute(items.insert(), values)
    places = [
        {"project_id": project, "owner_id": owner, "part": part, "item_id": row.id} for row in rows
    ]
    if places:
        connection.execute(item_places.insert(), places)
    return rows


def items_of(
    connection: sa.Connection, project: str, owner: str, part: Part | None = None
) -> list[ItemRow]:
    """All items of a response or conversation, in order."""
    query = _placed(project, owner, part).order_by(item_places.c.seq)
    return [ItemRow(row.id, row.data) for row in connection.execute(query)]


def page_of_items(
    connection: sa.Connection, project: str, owner: str, part: Part, cursor: Cursor
) -> Page[ItemRow]:
    """A page of the items of a response or conversation.

    Raises:
        InvalidRequest: the cursor names no such item.
    """
    placed = _placed(project, owner, part).subquery()
    return bounded_page_of(connection, placed, "data", cursor, ItemRow)


def found_item(connection: sa.Connection, project: str, owner: str, item_id: str) -> ItemRow:
    """One item of a conversation.

    Raises:
        ObjectNotFound: it has no such item.
    """
    query = _placed(project, owner, None).where(items.c.id == item_id).limit(1)
    row = connection.execute(query).first()
    if row is None:
        raise ObjectNotFound(f"Item with id '{item_id[:200]}' not found.")
    return ItemRow(row.id, row.data)


def found_items(
    connection: sa.Connection, project: str, ids: Iterable[str], max_bytes: int
) -> dict[str, bytes]:
    """Those of a project's items that exist, by id.

    Raises:
        HistoryTooLarge: they have more than `max_bytes`.
    """
    found: dict[str, bytes] = {}
    for some in _in_parts(sorted(set(ids))):
        query = sa.select(items.c.id, items.c.data).where(_are(project, some))
        rows = read_within(connection, query, max_bytes)
        max_bytes -= size_of(rows)
        found |= {row.id: row.data for row in rows}
    return found


def remove_items(
    connection: sa.Connection, project: str, owner: str, item_id: str | None = None
) -> int:
    """Remove items, or one, of a response or conversation; return how many it had of them.

    What nothing refers to any more is gone.
    """
    mine = [item_places.c.project_id == project, item_places.c.owner_id == owner]
    if item_id is not None:
        mine.append(item_places.c.item_id == item_id)
    ids = list(connection.execute(sa.select(item_places.c.item_id).where(*mine)).scalars())
    connection.execute(item_places.delete().where(*mine))
    for some in _in_parts(sorted(set(ids))):
        is_used = (
            sa.select(item_places.c.seq)
            .where(item_places.c.project_id == project, item_places.c.item_id == items.c.id)
            .correlate(items)
            .exists()
        )
        connection.execute(
            items.delete().where(items.c.project_id == project, items.c.id.in_(some), ~is_used)
        )
    return len(ids)


def items_within(
    connection: sa.Connection, project: str, owner: str, max_bytes: int
) -> list[ItemRow]:
    """All items of a conversation, in order.

    Raises:
        HistoryTooLarge: they have more than `max_bytes`.
    """
    query = _placed(project, owner, None).order_by(item_places.c.seq)
    return read_within(connection, query, max_bytes)


def read_within(connection: sa.Connection, query: sa.Select[Any], max_bytes: int) -> list[ItemRow]:
    """The items that a query finds; their size is looked at before any is read.

    Raises:
        HistoryTooLarge: they have more than `max_bytes`.
    """
    total = sa.func.coalesce(sa.func.sum(sa.func.length(items.c.data)), 0)
    sizes = query.with_only_columns(total, maintain_column_froms=True).order_by(None)
    if int(connection.execute(sizes).scalar_one()) > max_bytes:
        raise HistoryTooLarge
    return [ItemRow(row.id, row.data) for row in connection.execute(query)]


def size_of(rows: Iterable[ItemRow]) -> int:
    """Bytes of items."""
    return sum(len(row.data) for row in rows)


def count_and_size(connection: sa.Connection, project: str, owner: str) -> tuple[int, int]:
    """How many items a conversation has, and their bytes."""
    size = sa.func.coalesce(sa.func.sum(sa.func.length(items.c.data)), 0)
    query = _placed(project, owner, None).with_only_columns(
        sa.func.count(), size, maintain_column_froms=True
    )
    count, found = connection.execute(query).one()
    return int(count), int(found)


def _stored_alike(
    connection: sa.Connection, project: str, rows: Sequence[ItemRow]
) -> dict[str, bytes | None]:
    """What is stored under the ids of rows; None, unread, where that has another size."""
    known: dict[str, bytes | None] = {}
    sizes: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        sizes[row.id].add(len(row.data))
    for some in _in_parts(sorted(sizes)):
        size = sa.func.length(items.c.data).label("size")
        stored = connection.execute(sa.select(items.c.id, size).where(_are(project, some))).all()
        known |= {row.id: None for row in stored}
        same = [row.id for row in stored if row.size in sizes[row.id]]
        query = sa.select(items.c.id, items.c.data).where(_are(project, same))
        known |= {row.id: row.data for row in connection.execute(query)}
    return known


def _taken(connection: sa.Connection, project: str, owner: str, ids: Sequence[str]) -> set[str]:
    """Those of the ids that an owner has already."""
    found: set[str] = set()
    for some in _in_parts(sorted(set(ids))):
        query = sa.select(item_places.c.item_id).where(
            item_places.c.project_id == project,
            item_places.c.owner_id == owner,
            item_places.c.item_id.in_(some),
        )
        found |= set(connection.execute(query).scalars())
    return found


def _are(project: str, ids: Sequence[str]) -> sa.ColumnElement[bool]:
    return (items.c.project_id == project) & items.c.id.in_(ids)


def _placed(project: str, owner: str, part: Part | None) -> sa.Select[tuple[int, str, bytes]]:
    query = (
        sa.select(item_places.c.seq, items.c.id, items.c.data)
        .join(
            items,
            (items.c.project_id == item_places.c.project_id)
            & (items.c.id == item_places.c.item_id),
        )
        .where(item_places.c.project_id == project, item_places.c.owner_id == owner)
    )
    return query if part is None else query.where(item_places.c.part == part)


def _in_parts(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + MAX_IDS] for start in range(0, len(ids), MAX_IDS))
