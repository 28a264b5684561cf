"""Models that a project may use, and its service tiers, as OpenAI's API has them."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, field_validator

from gateway.http.organization.parts import PROJECT, CurrentActor
from gateway.http.organization.values import Params, Texts
from gateway.identity.project import Tier
from gateway.store import projects as store
from gateway.store.organization import Organization
from gateway.store.projects import ProjectRow

PERMISSIONS = f"{PROJECT}/model_permissions"
TIERS = f"{PROJECT}/service_tier_settings"
OPTIONAL_TIERS: dict[str, Tier] = {"flex": "flex", "fast": "priority"}
"""OpenAI's names of the tiers that a project may have besides the default one."""


class ModelPermissionsUpdate(Params):
    """Body that says which models a project may use."""

    mode: Literal["allow_list", "deny_list"]
    model_ids: Texts

    @field_validator("mode")
    @classmethod
    def _is_allow_list(cls, mode: str) -> str:
        if mode != "allow_list":
            raise ValueError("must be `allow_list`: a project is closed to models added later")
        return mode


class ModelPermissionsObject(BaseModel):
    """OpenAI's model permissions; a project without any may use all models."""

    object: Literal["project.model_permissions"] = "project.model_permissions"
    mode: Literal["allow_list", "deny_list"]
    model_ids: list[str]

    @classmethod
    def of(cls, row: ProjectRow) -> "ModelPermissionsObject":
        """The models of a project as the API shows them."""
        if row.models is None:
            return cls(mode="deny_list", model_ids=[])
        return cls(mode="allow_list", model_ids=list(row.models))


class DeletedModelPermissions(BaseModel):
    """Confirmation that a project may use all models."""

    object: Literal["project.model_permissions.deleted"] = "project.model_permissions.deleted"
    deleted: Literal[True] = True


class ServiceTiersUpdate(Params):
    """Body that says which tiers requests of a project may ask for."""

    default: Literal["standard"] = "standard"
    enabled_tiers: Literal["all"] | Annotated[list[Literal["flex", "fast"]], Field(max_length=2)]

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The same in our own terms."""
        wanted = OPTIONAL_TIERS if self.enabled_tiers == "all" else self.enabled_tiers
        tiers = {OPTIONAL_TIERS[each] for each in wanted} | {"default"}
        return tuple(tier for tier in _ALL_TIERS if tier in tiers)


_ALL_TIERS: tuple[Tier, ...] = ("flex", "default", "priority")


class ServiceTiersObject(BaseModel):
    """OpenAI's service tier settings."""

    object: Literal["project.service_tier_settings"] = "project.service_tier_settings"
    default: Literal["standard"] = "standard"
    enabled_tiers: list[str]

    @classmethod
    def of(cls, row: ProjectRow) -> "ServiceTiersObject":
        """The tiers of a project as the API shows them."""
        return cls(enabled_tiers=[name for name, t in OPTIONAL_TIERS.items() if t in row.tiers])


def model_permissions_router(organization: Organization) -> APIRouter:
    """Routes for models and tiers of a project."""
    router = APIRouter()

    async def change(actor: CurrentActor, project_id: str, name: str, value: object) -> ProjectRow:
        return await organization.change(
            actor, lambda change: store.update_project(change, project_id, {name: value})
        )

    @router.get(PERMISSIONS)
    async def retrieve(project_id: str) -> ModelPermissionsObject:
        """Which models a project may use."""
        row = await organization.read(lambda connection: store.project(connection, project_id))
        return ModelPermissionsObject.of(row)

    @router.post(PERMISSIONS)
    async def update(
        project_id: str, body: ModelPermissionsUpdate, actor: CurrentActor
    ) -> ModelPermissionsObject:
        """Let a project use these models only."""
        row = await change(actor, project_id, "models", tuple(body.model_ids))
        return ModelPermissionsObject.of(row)

    @router.delete(PERMISSIONS)
    async def delete(project_id: str, actor: CurrentActor) -> DeletedModelPermissions:
        """Let a project use all models."""
        await change(actor, project_id, "models", None)
        return DeletedModelPermissions()

    @router.get(TIERS)
    async def retrieve_tiers(project_id: str) -> ServiceTiersObject:
        """Which tiers a project's requests may ask for."""
        row = await organization.read(lambda connection: store.project(connection, project_id))
        return ServiceTiersObject.of(row)

    @router.post(TIERS)
    async def update_tiers(
        project_id: str, body: ServiceTiersUpdate, actor: CurrentActor
    ) -> ServiceTiersObject:
        """Say which tiers a project's requests may ask for."""
        return ServiceTiersObject.of(await change(actor, project_id, "tiers", body.tiers))

    return router
