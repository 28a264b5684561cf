"""Projects in the database."""

import msgspec
import sqlalchemy as sa

from gateway.errors.administration import ProjectArchived
from gateway.identity.project import OWN_PROJECT, Tier
from gateway.store.changes import Change, new_id
from gateway.store.pages import Cursor, Page, page_of
from gateway.store.rows import found_row
from gateway.store.tables import projects


class ProjectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a project; see `gateway.identity.project.Project`."""

    weight: float = 1.0
    cache_scope: str = OWN_PROJECT
    models: tuple[str, ...] | None = None
    routes: tuple[str, ...] | None = None
    tiers: tuple[Tier, ...] = ("flex", "default")
    max_body_mb: float | None = None


class ProjectRow(ProjectSettings, frozen=True, kw_only=True):
    """A project."""

    id: str
    name: str
    created_s: int
    archived_s: int | None = None


def create_project(change: Change, name: str, settings: ProjectSettings) -> ProjectRow:
    """Create a project; several may have the same name, as OpenAI's may."""
    values = {"name": name, **msgspec.structs.asdict(settings)}
    row = ProjectRow(id=new_id("proj_"), created_s=change.now_s, **values)
    change.connection.execute(projects.insert().values(**msgspec.structs.asdict(row)))
    change.record("project.created", row.id, project_id=row.id, after=msgspec.structs.asdict(row))
    return row


def project(connection: sa.Connection, project_id: str) -> ProjectRow:
    """A project, archived or not.

    Raises:
        NotFound: there is none with this id.
    """
    return found_row(connection, projects, ProjectRow, "project", project_id)


def active_project(connection: sa.Connection, project_id: str) -> ProjectRow:
    """A project that may be changed.

    Raises:
        NotFound: there is none with this id.
        ProjectArchived: it is archived.
    """
    row = project(connection, project_id)
    if row.archived_s is not None:
        raise ProjectArchived(f"The project `{project_id}` is archived and cannot be changed.")
    return row


def list_projects(
    connection: sa.Connection, cursor: Cursor, *, has_archived: bool
) -> Page[ProjectRow]:
    """A page of projects, with or without the archived ones."""
    conditions = () if has_archived else (projects.c.archived_s.is_(None),)
    return page_of(connection, projects, cursor, ProjectRow, *conditions)


def update_project(change: Change, project_id: str, values: dict[str, object]) -> ProjectRow:
    """Change a project's name or settings; what stays the same leaves no trace."""
    before = active_project(change.connection, project_id)
    after = msgspec.structs.replace(before, **values)
    return before if after == before else _replace(change, before, after, "project.updated")


def archive_project(change: Change, project_id: str) -> ProjectRow:
    """Archive a project: its keys are invalid from now on. Once archived, it stays so."""
    before = project(change.connection, project_id)
    if before.archived_s is not None:
        return before
    after = msgspec.structs.replace(before, archived_s=change.now_s)
    return _replace(change, before, after, "project.archived")


def _replace(change: Change, before: ProjectRow, after: ProjectRow, event: str) -> ProjectRow:
    update = projects.update().where(projects.c.id == before.id)
    change.connection.execute(update.values(**msgspec.structs.asdict(after)))
    change.record(
        event,
        before.id,
        project_id=before.id,
        before=msgspec.structs.asdict(before),
        after=msgspec.structs.asdict(after),
    )
    return after
