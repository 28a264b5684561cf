"""Conversations in the database."""

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from gateway.errors.state import ObjectNotFound, StorageFull
from gateway.store.changes import new_id
from gateway.store.response_items import (
    ItemRow,
    add_items,
    count_and_size,
    items_within,
    remove_items,
)
from gateway.store.response_tables import conversations, item_places
from gateway.store.rows import row_of

MAX_ITEMS = 10_000
"""Items of a conversation at the utmost, but for those of the response that reaches it."""
MAX_BYTES = 256 << 20
"""The same of their bytes."""
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


def has_conversation(connection: sa.Connection, project: str, conversation_id: str) -> bool:
    """Whether there is a conversation; it may have been deleted."""
    query = sa.select(conversations.c.seq).where(_is(project, conversation_id))
    return bool(conversation_id) and connection.execute(query).first() is not None


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
    """All items of a conversation that can go on.

    Raises:
        ObjectNotFound: there is no such conversation.
        StorageFull: it can take no more.
        HistoryTooLarge: they have more than `max_bytes`.
    """
    conversation(connection, project, conversation_id)
    check_room(connection, project, conversation_id)
    return items_within(connection, project, conversation_id, max_bytes)


def check_room(
    connection: sa.Connection, project: str, conversation_id: str, given: Sequence[bytes] = ()
) -> None:
    """Check that a conversation can take these items, or at least one more.

    Raises:
        StorageFull: it cannot.
    """
    count, size = count_and_size(connection, project, conversation_id)
    if count + max(len(given), 1) > MAX_ITEMS or size + sum(map(len, given)) > MAX_BYTES:
        raise StorageFull(
            f"The conversation has {count} items of {size / 2**20:.1f} MiB; it may have at most"
            f" {MAX_ITEMS} of {MAX_BYTES >> 20} MiB. Begin another one."
        )


def last_place(connection: sa.Connection, project: str, owner: str) -> int:
    """Number of the last place of a conversation; 0 without any."""
    query = sa.select(sa.func.max(item_places.c.seq)).where(
        item_places.c.project_id == project, item_places.c.owner_id == owner
    )
    return int(connection.execute(query).scalar() or 0)


def _is(project: str, conversation_id: str) -> sa.ColumnElement[bool]:
    return (conversations.c.project_id == project) & (conversations.c.id == conversation_id)
