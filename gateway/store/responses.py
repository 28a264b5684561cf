"""Responses in the database: threads of them, and those that are made in the background."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from gateway.errors.request import InvalidRequest
from gateway.errors.state import ObjectNotFound, PreviousResponseNotFound
from gateway.store.conversations import conversation, has_conversation, last_place
from gateway.store.response_items import (
    ItemRow,
    add_items,
    items_of,
    read_within,
    remove_items,
    size_of,
)
from gateway.store.response_tables import item_places, items, response_events, responses
from gateway.store.rows import row_of

QUEUED, IN_PROGRESS = "queued", "in_progress"
UNFINISHED = (QUEUED, IN_PROGRESS)
ENTERED = ("completed", "incomplete")
"""Statuses with which a response becomes part of its conversation."""


class ResponseRow(msgspec.Struct, frozen=True, kw_only=True):
    """A response; see `gateway.store.response_tables`."""

    id: str
    status: str
    body: bytes
    previous_id: str = ""
    conversation_id: str = ""
    conversation_seq: int = 0
    root_id: str = ""
    is_background: bool = False
    is_deleted: bool = False
    created_s: int = 0
    expires_s: int = 0
    lease_s: int = 0

    @property
    def is_unfinished(self) -> bool:
        """Whether it is still being made."""
        return self.status in UNFINISHED


class NewResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response to be kept, with its items."""

    id: str
    status: str
    body: bytes
    input: Sequence[bytes]
    output: Sequence[bytes] = ()
    previous_id: str = ""
    conversation_id: str = ""
    is_background: bool = False


def add_response(
    connection: sa.Connection,
    project: str,
    new: NewResponse,
    *,
    now_s: int,
    expires_s: int,
    lease_s: int = 0,
) -> None:
    """Keep a response; one that is kept already stays as it is.

    Its items go into its conversation, if it has one, once it is finished.

    Raises:
        ObjectNotFound: there is no such conversation.
        InvalidRequest: one of its items is none.
    """
    if _find(connection, project, new.id) is not None:
        return
    before = None
    if new.previous_id:
        before = _find(connection, project, new.previous_id)
    seq = 0
    if new.conversation_id:
        conversation(connection, project, new.conversation_id)
        seq = last_place(connection, project, new.conversation_id)
    row = ResponseRow(
        id=new.id,
        status=new.status,
        body=new.body,
        previous_id=new.previous_id,
        conversation_id=new.conversation_id,
        conversation_seq=seq,
        root_id=new.id if before is None else before.root_id,
        is_background=new.is_background,
        created_s=now_s,
        expires_s=expires_s,
        lease_s=lease_s,
    )
    connection.execute(responses.insert().values(project_id=project, **msgspec.structs.asdict(row)))
    add_items(connection, project, new.id, "input", new.input)
    if not row.is_unfinished:
        _add_output(connection, project, row, new.output)


def finish_response(
    connection: sa.Connection,
    project: str,
    response_id: str,
    status: str,
    body: bytes,
    output: Sequence[bytes],
) -> bool:
    """Complete a response that is being made; False if it is no longer.

    Raises:
        InvalidRequest: one of its items is none.
    """
    row = _find(connection, project, response_id)
    if row is None or not row.is_unfinished:
        return False
    _update(connection, project, response_id, status=status, body=body, lease_s=0)
    row = msgspec.structs.replace(row, status=status)
    _add_output(connection, project, row, output)
    return True


def response(connection: sa.Connection, project: str, response_id: str, now_s: int) -> ResponseRow:
    """A response of a project.

    Raises:
        ObjectNotFound: there is none, or it has expired.
    """
    row = _find(connection, project, response_id)
    if row is None or row.is_deleted or row.expires_s <= now_s:
        raise ObjectNotFound(f"Response with id '{response_id[:200]}' not found.")
    return row


def output_of(connection: sa.Connection, project: str, response_id: str) -> list[ItemRow]:
    """The items of a response's output."""
    return items_of(connection, project, response_id, "output")


def history(
    connection: sa.Connection, project: str, response_id: str, now_s: int, max_bytes: int
) -> list[ItemRow]:
    """All items of a response and of what it continues, oldest first; O(their number).

    Raises:
        PreviousResponseNotFound: there is no such response.
        InvalidRequest: it is still being made.
        HistoryTooLarge: they have more than `max_bytes`.
    """
    row = _find(connection, project, response_id)
    if row is None or row.is_deleted or row.expires_s <= now_s:
        raise PreviousResponseNotFound.of(response_id)
    if row.is_unfinished:
        message = f"The response '{response_id}' is still {row.status}: wait for its end."
        raise InvalidRequest(message, "previous_response_id")
    root = _find(connection, project, row.root_id)
    before: list[ItemRow] = []
    if root is not None and root.conversation_id:
        before = read_within(connection, _until(project, root), max_bytes)
    left = max_bytes - size_of(before)
    return before + read_within(connection, _thread(project, response_id), left)


def delete_response(connection: sa.Connection, project: str, response_id: str, now_s: int) -> None:
    """Delete a response; its items stay while other responses continue it.

    Raises:
        ObjectNotFound: there is none.
    """
    response(connection, project, response_id, now_s)
    _delete_events(connection, project, response_id)
    is_continued = connection.execute(
        sa.select(responses.c.seq)
        .where(responses.c.project_id == project, responses.c.previous_id == response_id)
        .limit(1)
    ).first()
    if is_continued is None:
        _delete(connection, project, response_id)
    else:
        gone = {"is_deleted": True, "body": b"{}", "lease_s": 0, "expires_s": 0}
        _update(connection, project, response_id, **gone)


class Thread(msgspec.Struct, frozen=True):
    """A thread of responses, by its first one."""

    project: str
    root_id: str


def expired_threads(connection: sa.Connection, now_s: int, most: int) -> list[Thread]:
    """Some threads all of whose responses have expired or were deleted."""
    query = (
        sa.select(responses.c.project_id, responses.c.root_id)
        .where(responses.c.expires_s <= now_s, ~_is_alive(now_s))
        .distinct()
        .limit(most)
    )
    return [Thread(row.project_id, row.root_id) for row in connection.execute(query)]


def delete_expired_threads(
    connection: sa.Connection, threads: Sequence[Thread], now_s: int, most: int
) -> None:
    """Delete threads, unless they have been continued; at most so many responses of them."""
    for thread in threads:
        mine = (
            sa.select(responses.c.id)
            .where(
                responses.c.project_id == thread.project,
                responses.c.root_id == thread.root_id,
                ~_is_alive(now_s),
            )
            .limit(most)
        )
        found = list(connection.execute(mine).scalars())
        for response_id in found:
            _delete(connection, thread.project, response_id)
        most -= len(found)
        if most <= 0:
            return


def _is_alive(now_s: int) -> sa.ColumnElement[bool]:
    """Whether the thread of a response has one that has neither expired nor been deleted."""
    other = responses.alias()
    return (
        sa.select(other.c.seq)
        .where(
            other.c.project_id == responses.c.project_id,
            other.c.root_id == responses.c.root_id,
            other.c.expires_s > now_s,
        )
        .correlate(responses)
        .exists()
    )


def _add_output(
    connection: sa.Connection, project: str, row: ResponseRow, output: Sequence[bytes]
) -> None:
    """Add the output of a finished response, and all its items to its conversation."""
    made = add_items(connection, project, row.id, "output", output)
    if row.status in ENTERED and has_conversation(connection, project, row.conversation_id):
        given = items_of(connection, project, row.id, "input")
        data = [each.data for each in (*given, *made)]
        add_items(connection, project, row.conversation_id, "item", data)


def _find(connection: sa.Connection, project: str, response_id: str) -> ResponseRow | None:
    query = sa.select(responses).where(
        responses.c.project_id == project, responses.c.id == response_id
    )
    row = connection.execute(query).first()
    return None if row is None else row_of(row, ResponseRow)


def _update(connection: sa.Connection, project: str, response_id: str, **values: object) -> None:
    mine = (responses.c.project_id == project) & (responses.c.id == response_id)
    connection.execute(responses.update().where(mine).values(**values))


def _delete(connection: sa.Connection, project: str, response_id: str) -> None:
    remove_items(connection, project, response_id)
    _delete_events(connection, project, response_id)
    mine = (responses.c.project_id == project) & (responses.c.id == response_id)
    connection.execute(responses.delete().where(mine))


def _delete_events(connection: sa.Connection, project: str, response_id: str) -> None:
    mine = (response_events.c.project_id == project) & (
        response_events.c.response_id == response_id
    )
    connection.execute(response_events.delete().where(mine))


def _until(project: str, row: ResponseRow) -> sa.Select[tuple[str, bytes]]:
    """Items of the conversation of a response that came before it."""
    return (
        sa.select(items.c.id, items.c.data)
        .join(item_places, _is_placed())
        .where(
            item_places.c.project_id == project,
            item_places.c.owner_id == row.conversation_id,
            item_places.c.seq <= row.conversation_seq,
        )
        .order_by(item_places.c.seq)
    )


def _thread(project: str, response_id: str) -> sa.Select[tuple[str, bytes]]:
    """Items of a response and of all that it continues, oldest first."""
    thread = (
        sa.select(
            responses.c.id, responses.c.previous_id, sa.literal_column("0", sa.Integer).label("age")
        )
        .where(responses.c.project_id == project, responses.c.id == response_id)
        .cte("thread", recursive=True)
    )
    older = sa.select(responses.c.id, responses.c.previous_id, thread.c.age + 1).where(
        responses.c.project_id == project, responses.c.id == thread.c.previous_id
    )
    thread = thread.union_all(older)
    return (
        sa.select(items.c.id, items.c.data)
        .join(item_places, _is_placed())
        .join(thread, thread.c.id == item_places.c.owner_id)
        .where(item_places.c.project_id == project)
        .order_by(thread.c.age.desc(), item_places.c.seq)
    )


def _is_placed() -> sa.ColumnElement[bool]:
    return (items.c.project_id == item_places.c.project_id) & (items.c.id == item_places.c.item_id)
