"""Conversations in the database."""

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from gateway.errors.state import ObjectNotFound
from gateway.store.changes import new_id
from gateway.store.response_items import ItemRow, add_items, items_of, remove_items, within
from gateway.store.response_tables import conversations, item_places
from gateway.store.rows import row_of

Labels = Mapping[str, str]
"""OpenAI's `metadata`."""


class ConversationRow(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation."""

    id: str
    created_s: int
    labels: dict[str, str] = {}


def add_conversation(
    connection: sa.Connection, project: str, labels: Labels, given: Sequence[bytes], now_s: int
) -> ConversationRow:
    """Begin a conversation, with some items.

    Raises:
        InvalidRequest: one of the items is none.
    """
    row = ConversationRow(id=new_id("conv_"), created_s=now_s, labels=dict(labels))
    connection.execute(
        conversations.insert().values(project_id=project, **msgspec.structs.asdict(row))
    )
    add_items(connection, project, row.id, "item", given)
    return row


def conversation(connection: sa.Connection, project: str, conversation_id: str) -> ConversationRow:
    """A conversation of a project.

    Raises:
        ObjectNotFound: there is none.
    """
    query = sa.select(conversations).where(_is(project, conversation_id))
    row = connection.execute(query).first()
    if row is None:
        raise ObjectNotFound(f"Conversation with id '{conversation_id[:200]}' not found.")
    return row_of(row, ConversationRow)


def update_conversation(
    connection: sa.Connection, project: str, conversation_id: str, labels: Labels
) -> ConversationRow:
    """Give a conversation other metadata.

    Raises:
        ObjectNotFound: there is none.
    """
    row = conversation(connection, project, conversation_id)
    update = conversations.update().where(_is(project, conversation_id))
    connection.execute(update.values(labels=dict(labels)))
    return msgspec.structs.replace(row, labels=dict(labels))


def delete_conversation(connection: sa.Connection, project: str, conversation_id: str) -> None:
    """Delete a conversation, and its items but for those of responses.

    Raises:
        ObjectNotFound: there is none.
    """
    conversation(connection, project, conversation_id)
    remove_items(connection, project, conversation_id)
    connection.execute(conversations.delete().where(_is(project, conversation_id)))


def conversation_items(
    connection: sa.Connection, project: str, conversation_id: str, max_bytes: int
) -> list[ItemRow]:
    """All items of a conversation.

    Raises:
        ObjectNotFound: there is no such conversation.
        HistoryTooLarge: they have more than `max_bytes`.
    """
    conversation(connection, project, conversation_id)
    return within(items_of(connection, project, conversation_id), max_bytes)


def last_place(connection: sa.Connection, project: str, owner: str) -> int:
    """Number of the last place of a conversation; 0 without any."""
    query = sa.select(sa.func.max(item_places.c.seq)).where(
        item_places.c.project_id == project, item_places.c.owner_id == owner
    )
    return int(connection.execute(query).scalar() or 0)


def _is(project: str, conversation_id: str) -> sa.ColumnElement[bool]:
    return (conversations.c.project_id == project) & (conversations.c.id == conversation_id)
