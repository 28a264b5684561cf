"""Stored chat completions in the database."""

from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from gateway.errors.request import InvalidRequest
from gateway.errors.state import ObjectNotFound
from gateway.store.pages import Cursor, Page, bounded_page_of
from gateway.store.response_tables import stored_chats
from gateway.store.rows import row_of


class ListedChat(msgspec.Struct, frozen=True, kw_only=True):
    """A chat completion in a list: without the messages that it answers."""

    id: str
    body: bytes
    """The answer, without its metadata."""
    labels: dict[str, str] = {}


class ChatRow(ListedChat, frozen=True, kw_only=True):
    """A chat completion that is kept."""

    model: str
    messages: bytes
    """JSON list of the messages that it answers."""
    created_s: int = 0
    expires_s: int = 0


def add_chat(connection: sa.Connection, project: str, row: ChatRow) -> None:
    """Keep a chat completion; one that is kept already stays as it is."""
    if connection.execute(sa.select(stored_chats.c.seq).where(_is(project, row.id))).first():
        return
    connection.execute(
        stored_chats.insert().values(project_id=project, **msgspec.structs.asdict(row))
    )


def chat(connection: sa.Connection, project: str, chat_id: str, now_s: int) -> ChatRow:
    """A stored chat completion of a project.

    Raises:
        ObjectNotFound: there is none, or it has expired.
    """
    query = sa.select(stored_chats).where(_is(project, chat_id), stored_chats.c.expires_s > now_s)
    row = connection.execute(query).first()
    if row is None:
        raise ObjectNotFound(f"Chat completion with id '{chat_id[:200]}' not found.")
    return row_of(row, ChatRow)


def list_chats(
    connection: sa.Connection,
    project: str,
    cursor: Cursor,
    now_s: int,
    model: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Page[ListedChat]:
    """A page of a project's chat completions, of a model and with these labels if given.

    Raises:
        InvalidRequest: the cursor names none of them, or a label has no usable name.
    """
    conditions = [stored_chats.c.expires_s > now_s]
    if model is not None:
        conditions.append(stored_chats.c.model == model)
    for name, value in (labels or {}).items():
        if '"' in name or "\\" in name:
            raise InvalidRequest("Names in `metadata` cannot be searched with quotes.", "metadata")
        conditions.append(stored_chats.c.labels[name].as_string() == value)
    mine = [stored_chats.c.project_id == project]
    return bounded_page_of(
        *(connection, stored_chats, "body", cursor, ListedChat), *conditions, within=mine
    )


def update_chat(
    connection: sa.Connection, project: str, chat_id: str, labels: Mapping[str, str], now_s: int
) -> ChatRow:
    """Give a chat completion other metadata.

    Raises:
        ObjectNotFound: there is none.
    """
    row = chat(connection, project, chat_id, now_s)
    update = stored_chats.update().where(_is(project, chat_id))
    connection.execute(update.values(labels=dict(labels)))
    return msgspec.structs.replace(row, labels=dict(labels))


def delete_chat(connection: sa.Connection, project: str, chat_id: str, now_s: int) -> None:
    """Delete a chat completion.

    Raises:
        ObjectNotFound: there is none.
    """
    chat(connection, project, chat_id, now_s)
    connection.execute(stored_chats.delete().where(_is(project, chat_id)))


def delete_expired_chats(connection: sa.Connection, now_s: int, most: int) -> int:
    """Delete chat completions that have expired, at most so many; return how many."""
    expired = sa.select(stored_chats.c.seq).where(stored_chats.c.expires_s <= now_s).limit(most)
    found = list(connection.execute(expired).scalars())
    if found:
        connection.execute(stored_chats.delete().where(stored_chats.c.seq.in_(found)))
    return len(found)


def _is(project: str, chat_id: str) -> sa.ColumnElement[bool]:
    return (stored_chats.c.project_id == project) & (stored_chats.c.id == chat_id)
