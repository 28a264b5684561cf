"""The audit log: what administrators have changed, and who they are."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from gateway.store.pages import Cursor, Page, page_of
from gateway.store.tables import audit, projects


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One change."""

    id: str
    at_s: int
    event: str
    actor_id: str
    address: str
    project_id: str | None = None
    project_name: str | None = None
    object_id: str
    before: dict[str, object] | None = None
    after: dict[str, object] | None = None


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes to list; an empty list stands for all."""

    since_s: int | None = None
    """The first second."""
    until_s: int | None = None
    """The last second."""
    events: Sequence[str] = ()
    actor_ids: Sequence[str] = ()
    project_ids: Sequence[str] = ()
    object_ids: Sequence[str] = ()


_entries = (
    sa.select(audit, projects.c.name.label("project_name"))
    .join(projects, projects.c.id == audit.c.project_id, isouter=True)
    .subquery("entries")
)


def list_audit_log(
    connection: sa.Connection, cursor: Cursor, wanted: AuditFilter
) -> Page[AuditRow]:
    """A page of the log."""
    table = _entries.c
    conditions: list[sa.ColumnElement[bool]] = [
        column.in_(values)
        for column, values in (
            (table.event, wanted.events),
            (table.actor_id, wanted.actor_ids),
            (table.project_id, wanted.project_ids),
            (table.object_id, wanted.object_ids),
        )
        if values
    ]
    if wanted.since_s is not None:
        conditions.append(table.at_s >= wanted.since_s)
    if wanted.until_s is not None:
        conditions.append(table.at_s <= wanted.until_s)
    return page_of(connection, _entries, cursor, AuditRow, *conditions)
