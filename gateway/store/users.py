"""Users in the database: labels of people, who may be members of projects and own keys."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from gateway.errors.administration import NotFound
from gateway.store.changes import Change, new_id
from gateway.store.key_deletion import delete_keys
from gateway.store.pages import Cursor, Page, page_of
from gateway.store.rows import row_of
from gateway.store.tables import api_keys, project_users, users


class UserRow(msgspec.Struct, frozen=True, kw_only=True):
    """A user of the organization."""

    id: str
    email: str
    role: str
    created_s: int


def user(connection: sa.Connection, user_id: str) -> UserRow:
    """A user.

    Raises:
        NotFound: there is none with this id.
    """
    found = _user_where(connection, users.c.id == user_id)
    if found is None:
        raise NotFound.of("user", user_id)
    return found


def find_user(connection: sa.Connection, email: str) -> UserRow | None:
    """The user with this address, if there is one."""
    return _user_where(connection, users.c.email == email)


def add_user(change: Change, email: str, role: str) -> UserRow:
    """Add a user, whose address nobody else has."""
    row = UserRow(id=new_id("user-"), email=email, role=role, created_s=change.now_s)
    change.connection.execute(users.insert().values(**msgspec.structs.asdict(row)))
    change.record("user.added", row.id, after=msgspec.structs.asdict(row))
    return row


def list_users(
    connection: sa.Connection, cursor: Cursor, emails: Sequence[str] = ()
) -> Page[UserRow]:
    """A page of users, perhaps only those with some addresses."""
    conditions = [users.c.deleted_s.is_(None)]
    if emails:
        conditions.append(users.c.email.in_(emails))
    return page_of(connection, users, cursor, UserRow, *conditions)


def update_user(change: Change, user_id: str, role: str) -> UserRow:
    """Change a user's role."""
    before = user(change.connection, user_id)
    after = msgspec.structs.replace(before, role=role)
    if after != before:
        update = users.update().where(users.c.id == user_id)
        change.connection.execute(update.values(role=role))
        change.record(
            "user.updated",
            user_id,
            before=msgspec.structs.asdict(before),
            after=msgspec.structs.asdict(after),
        )
    return after


def delete_user(change: Change, user_id: str) -> None:
    """Remove a user from the organization and its projects, and delete the user's keys."""
    before = user(change.connection, user_id)
    for table, column in ((users, users.c.id), (project_users, project_users.c.user_id)):
        update = table.update().where(column == user_id, table.c.deleted_s.is_(None))
        change.connection.execute(update.values(deleted_s=change.now_s))
    delete_keys(change.connection, change.now_s, api_keys.c.owner_id == user_id)
    change.record("user.deleted", user_id, before=msgspec.structs.asdict(before))


def _user_where(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> UserRow | None:
    query = sa.select(users).where(condition, users.c.deleted_s.is_(None))
    found = connection.execute(query).first()
    return None if found is None else row_of(found, UserRow)
