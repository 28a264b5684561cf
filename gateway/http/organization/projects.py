"""Projects: `/v1/organization/projects`."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from gateway.config.project_values import BodyMb, CacheScope, Route, Text, Tiers, Weight
from gateway.http.organization.parts import PROJECT, CurrentActor, ListObject, listed
from gateway.http.organization.values import MAX_LIST, ListQuery, Params, Texts
from gateway.http.query import query
from gateway.identity.project import OWN_PROJECT, Tier
from gateway.store import projects as store
from gateway.store.organization import Organization
from gateway.store.projects import ProjectRow, ProjectSettings

SETTINGS = ProjectSettings.__struct_fields__
"""Settings that OpenAI's projects do not have."""
TUPLES = ("models", "routes", "tiers")


class ProjectFields(Params):
    """Settings of a project beyond OpenAI's."""

    weight: Weight = 1.0
    """Share of a busy model's time, relative to other projects."""
    cache_scope: CacheScope = OWN_PROJECT
    """Who shares cached prefixes: `project`, `key`, `group:NAME` or `all`."""
    models: Texts | None = None
    """Models and adapters that it may use; null: all. `model_permissions` is the same list."""
    routes: Annotated[list[Route], Field(max_length=MAX_LIST)] | None = None
    """Paths that it may use; null: those that are open by default."""
    tiers: Tiers = Field(default_factory=lambda: list[Tier](("flex", "default")))
    """Priority classes that its requests may ask for."""
    max_body_mb: BodyMb | None = None
    """Maximum size of its requests' bodies, in megabytes (2**20 bytes); null: the gateway's."""

    @property
    def settings(self) -> dict[str, object]:
        """The settings that are given."""
        found = self.given(*SETTINGS)
        return {
            name: tuple(value) if name in TUPLES and isinstance(value, list) else value
            for name, value in found.items()
        }


class ProjectCreation(ProjectFields):
    """Body that creates a project."""

    name: Text


class ProjectUpdate(ProjectFields):
    """Body that changes a project: what it does not have stays."""

    name: Text = ""


class ProjectsQuery(ListQuery):
    """Which projects to list."""

    include_archived: bool = False


class ProjectObject(BaseModel):
    """OpenAI's project, with the gateway's settings."""

    id: str
    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]
    weight: float
    cache_scope: str
    models: list[str] | None
    routes: list[str] | None
    tiers: list[str]
    max_body_mb: float | None

    @classmethod
    def of(cls, row: ProjectRow) -> "ProjectObject":
        """A row as the API shows it."""
        return cls(
            id=row.id,
            name=row.name,
            created_at=row.created_s,
            archived_at=row.archived_s,
            status="active" if row.archived_s is None else "archived",
            weight=row.weight,
            cache_scope=row.cache_scope,
            models=None if row.models is None else list(row.models),
            routes=None if row.routes is None else list(row.routes),
            tiers=list(row.tiers),
            max_body_mb=row.max_body_mb,
        )


def projects_router(organization: Organization) -> APIRouter:
    """Routes that create, show, change and archive projects."""
    router = APIRouter()

    @router.post("/v1/organization/projects")
    async def create(body: ProjectCreation, actor: CurrentActor) -> ProjectObject:
        """Create a project."""
        settings = msgspec.convert(body.settings, ProjectSettings)
        row = await organization.change(
            actor, lambda change: store.create_project(change, body.name, settings)
        )
        return ProjectObject.of(row)

    @router.get("/v1/organization/projects")
    async def list_all(
        wanted: Annotated[ProjectsQuery, Depends(query(ProjectsQuery))],
    ) -> ListObject[ProjectObject]:
        """List projects."""
        page = await organization.read(
            lambda connection: store.list_projects(
                connection, wanted.cursor, has_archived=wanted.include_archived
            )
        )
        return listed(page, ProjectObject.of)

    @router.get(PROJECT)
    async def retrieve(project_id: str) -> ProjectObject:
        """Retrieve a project."""
        row = await organization.read(lambda connection: store.project(connection, project_id))
        return ProjectObject.of(row)

    @router.post(PROJECT)
    async def update(project_id: str, body: ProjectUpdate, actor: CurrentActor) -> ProjectObject:
        """Change a project."""
        values = body.settings | body.given("name")
        row = await organization.change(
            actor, lambda change: store.update_project(change, project_id, values)
        )
        return ProjectObject.of(row)

    @router.post(f"{PROJECT}/archive")
    async def archive(project_id: str, actor: CurrentActor) -> ProjectObject:
        """Archive a project: its keys are invalid from now on."""
        row = await organization.change(
            actor, lambda change: store.archive_project(change, project_id)
        )
        return ProjectObject.of(row)

    return router
