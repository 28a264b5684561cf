"""Service accounts in the database: what is no person, and owns keys."""

from typing import Literal

import msgspec
import sqlalchemy as sa

from gateway.store.changes import Change, new_id
from gateway.store.key_deletion import delete_keys
from gateway.store.pages import Cursor, Page, page_of
from gateway.store.projects import active_project, project
from gateway.store.rows import found_row
from gateway.store.tables import api_keys, service_accounts

ServiceAccountRole = Literal["owner", "member", "none"]


class ServiceAccountRow(msgspec.Struct, frozen=True, kw_only=True):
    """A service account of a project."""

    id: str
    project_id: str
    name: str
    role: ServiceAccountRole
    created_s: int


def create_service_account(
    change: Change, project_id: str, name: str, role: ServiceAccountRole
) -> ServiceAccountRow:
    """Create a service account without a key."""
    active_project(change.connection, project_id)
    row = ServiceAccountRow(
        id=new_id("svc_acct_"),
        project_id=project_id,
        name=name,
        role=role,
        created_s=change.now_s,
    )
    change.connection.execute(service_accounts.insert().values(**msgspec.structs.asdict(row)))
    change.record(
        "service_account.created", row.id, project_id=project_id, after=msgspec.structs.asdict(row)
    )
    return row


def service_account(
    connection: sa.Connection, project_id: str, account_id: str
) -> ServiceAccountRow:
    """A service account of this project.

    Raises:
        NotFound: the project has none with this id.
    """
    project(connection, project_id)
    return found_row(
        connection,
        service_accounts,
        ServiceAccountRow,
        "service account",
        account_id,
        *_of(project_id),
    )


def list_service_accounts(
    connection: sa.Connection, project_id: str, cursor: Cursor
) -> Page[ServiceAccountRow]:
    """A page of a project's service accounts."""
    project(connection, project_id)
    of_project, is_there = _of(project_id)
    return page_of(
        connection, service_accounts, cursor, ServiceAccountRow, is_there, within=[of_project]
    )


def update_service_account(
    change: Change, project_id: str, account_id: str, values: dict[str, object]
) -> ServiceAccountRow:
    """Change a service account's name or role."""
    active_project(change.connection, project_id)
    before = service_account(change.connection, project_id, account_id)
    after = msgspec.structs.replace(before, **values)
    if after == before:
        return before
    update = service_accounts.update().where(service_accounts.c.id == account_id)
    change.connection.execute(update.values(**msgspec.structs.asdict(after)))
    change.record(
        "service_account.updated",
        account_id,
        project_id=project_id,
        before=msgspec.structs.asdict(before),
        after=msgspec.structs.asdict(after),
    )
    return after


def delete_service_account(change: Change, project_id: str, account_id: str) -> None:
    """Delete a service account and its keys."""
    before = service_account(change.connection, project_id, account_id)
    update = service_accounts.update().where(service_accounts.c.id == account_id)
    change.connection.execute(update.values(deleted_s=change.now_s))
    delete_keys(change.connection, change.now_s, api_keys.c.owner_id == account_id)
    change.record(
        "service_account.deleted",
        account_id,
        project_id=project_id,
        before=msgspec.structs.asdict(before),
    )


def _of(project_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    table = service_accounts.c
    return table.project_id == project_id, table.deleted_s.is_(None)
