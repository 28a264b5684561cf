"""The audit log: what administrators have changed, and who they are."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from gateway.store.organization_tables import audit_logs, projects
from gateway.store.pages import Cursor, Page, page_of


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One change."""

    id: str
    effective_at: int
    type: str
    actor_id: str
    actor_address: str
    project_id: str | None = None
    project_name: str | None = None
    resource_id: str
    before: dict[str, object] | None = None
    after: dict[str, object] | None = None


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes to list; an empty list stands for all."""

    since_s: int | None = None
    """The first second."""
    until_s: int | None = None
    """The last second."""
    types: Sequence[str] = ()
    actor_ids: Sequence[str] = ()
    project_ids: Sequence[str] = ()
    resource_ids: Sequence[str] = ()


_entries = (
    sa.select(audit_logs, projects.c.name.label("project_name"))
    .join(projects, projects.c.id == audit_logs.c.project_id, isouter=True)
    .subquery("entries")
)


def list_audit_log(
    connection: sa.Connection, cursor: Cursor, wanted: AuditFilter
) -> Page[AuditRow]:
    """A page of the log."""
    table = _entries.c
    conditions = [
        column.in_(values)
        for column, values in (
            (table.type, wanted.types),
            (table.actor_id, wanted.actor_ids),
            (table.project_id, wanted.project_ids),
            (table.resource_id, wanted.resource_ids),
        )
        if values
    ]
    if wanted.since_s is not None:
        conditions.append(table.effective_at >= wanted.since_s)
    if wanted.until_s is not None:
        conditions.append(table.effective_at <= wanted.until_s)
    return page_of(connection, _entries, cursor, AuditRow, *conditions)
