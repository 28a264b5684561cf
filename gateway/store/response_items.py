"""Items of responses and conversations in the database: each is kept once, and referred to."""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
import sqlalchemy as sa

from gateway.errors.state import ObjectNotFound
from gateway.request.response_item import with_id
from gateway.store.pages import Cursor, Page, page_of
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

    One that is kept already, by its id, is only referred to; if it has been changed, it is another.

    Raises:
        InvalidRequest: one of them is no item.
    """
    made = [ItemRow(*with_id(each, f"{part}[{place}]")) for place, each in enumerate(given)]
    stored = found_items(connection, project, (row.id for row in made))
    known, rows, new = dict(stored), [], {}
    for row in made:
        if known.setdefault(row.id, row.data) != row.data:
            row = ItemRow(*with_id(row.data, part, is_new=True))  # noqa: PLW2901
        rows.append(row)
        new[row.id] = row.data
    new = {each: data for each, data in new.items() if each not in stored}
    if new:
        values = [{"project_id": project, "id": each, "data": data} for each, data in new.items()]
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
    return page_of(connection, _placed(project, owner, part).subquery(), cursor, ItemRow)


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


def found_items(connection: sa.Connection, project: str, ids: Iterable[str]) -> dict[str, bytes]:
    """Those of a project's items that exist, by id."""
    found: dict[str, bytes] = {}
    for some in _in_parts(sorted(set(ids))):
        query = sa.select(items).where(items.c.project_id == project, items.c.id.in_(some))
        found |= {row.id: row.data for row in connection.execute(query)}
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


def within(rows: Iterable[ItemRow], max_bytes: int) -> list[ItemRow]:
    """The rows, as long as they are small enough.

    Raises:
        HistoryTooLarge: they are not.
    """
    kept: list[ItemRow] = []
    for row in rows:
        max_bytes -= len(row.data)
        if max_bytes < 0:
            raise HistoryTooLarge
        kept.append(row)
    return kept


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
