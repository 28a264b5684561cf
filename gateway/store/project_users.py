"""Members of projects in the database."""

import msgspec
import sqlalchemy as sa

from gateway.errors.administration import AlreadyExists, NotFound
from gateway.store.changes import Change
from gateway.store.key_deletion import delete_keys
from gateway.store.pages import Cursor, Page, page_of
from gateway.store.projects import active_project, project
from gateway.store.rows import row_of
from gateway.store.tables import api_keys, project_users, users
from gateway.store.users import user


class ProjectUserRow(msgspec.Struct, frozen=True, kw_only=True):
    """A user of a project."""

    id: str
    email: str
    role: str
    """Role in the project."""
    created_s: int


_memberships = (
    sa.select(
        project_users.c.seq,
        users.c.id,
        users.c.email,
        project_users.c.role,
        project_users.c.created_s,
        project_users.c.project_id,
        project_users.c.deleted_s,
    )
    .join(users, users.c.id == project_users.c.user_id)
    .subquery("memberships")
)


def add_project_user(change: Change, project_id: str, user_id: str, role: str) -> ProjectUserRow:
    """Make a user a member of a project.

    Raises:
        NotFound: there is no such project or user.
        AlreadyExists: the user is a member.
    """
    active_project(change.connection, project_id)
    known = user(change.connection, user_id)
    if _found(change.connection, project_id, user_id) is not None:
        raise AlreadyExists(f"The user `{user_id}` is in this project already.", "user_id")
    values = {"project_id": project_id, "user_id": user_id, "role": role}
    change.connection.execute(project_users.insert().values(**values, created_s=change.now_s))
    change.record("user.added", user_id, project_id=project_id, after={"role": role})
    return ProjectUserRow(id=user_id, email=known.email, role=role, created_s=change.now_s)


def project_user(connection: sa.Connection, project_id: str, user_id: str) -> ProjectUserRow:
    """A user of this project.

    Raises:
        NotFound: the project has none with this id.
    """
    project(connection, project_id)
    row = _found(connection, project_id, user_id)
    if row is None:
        raise NotFound.of("user", user_id)
    return row


def list_project_users(
    connection: sa.Connection, project_id: str, cursor: Cursor
) -> Page[ProjectUserRow]:
    """A page of a project's users."""
    project(connection, project_id)
    of_project, is_there = _of(project_id)
    return page_of(connection, _memberships, cursor, ProjectUserRow, is_there, within=[of_project])


def update_project_user(change: Change, project_id: str, user_id: str, role: str) -> ProjectUserRow:
    """Change a user's role in a project."""
    active_project(change.connection, project_id)
    before = project_user(change.connection, project_id, user_id)
    if before.role != role:
        update = _membership_update(project_id, user_id).values(role=role)
        change.connection.execute(update)
        change.record(
            "user.updated",
            user_id,
            project_id=project_id,
            before={"role": before.role},
            after={"role": role},
        )
    return msgspec.structs.replace(before, role=role)


def remove_project_user(change: Change, project_id: str, user_id: str) -> None:
    """Remove a user from a project, and delete the user's keys there."""
    before = project_user(change.connection, project_id, user_id)
    update = _membership_update(project_id, user_id)
    change.connection.execute(update.values(deleted_s=change.now_s))
    is_theirs = (api_keys.c.owner_id == user_id, api_keys.c.project_id == project_id)
    delete_keys(change.connection, change.now_s, *is_theirs)
    change.record("user.deleted", user_id, project_id=project_id, before={"role": before.role})


def _membership_update(project_id: str, user_id: str) -> sa.Update:
    return project_users.update().where(
        project_users.c.project_id == project_id,
        project_users.c.user_id == user_id,
        project_users.c.deleted_s.is_(None),
    )


def _found(connection: sa.Connection, project_id: str, user_id: str) -> ProjectUserRow | None:
    query = sa.select(_memberships).where(_memberships.c.id == user_id, *_of(project_id))
    found = connection.execute(query).first()
    return None if found is None else row_of(found, ProjectUserRow)


def _of(project_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    table = _memberships.c
    return table.project_id == project_id, table.deleted_s.is_(None)
