"""API keys of a project: `.../api_keys`. They are created for service accounts and users."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, field_validator

from gateway.http.organization.new_keys import no_scopes
from gateway.http.organization.parts import (
    PROJECT,
    CurrentActor,
    DeletedObject,
    ListObject,
    listed,
)
from gateway.http.organization.values import LifetimeS, ListQuery, Params, Texts
from gateway.http.query import query
from gateway.store import api_keys as store
from gateway.store.api_keys import ApiKeyRow, KeyOwner
from gateway.store.organization import Organization

KEYS = f"{PROJECT}/api_keys"
KEY = f"{KEYS}/{{key_id}}"


class KeyUpdate(Params):
    """Body that changes a key."""

    expires_in_seconds: LifetimeS = 1
    scopes: Texts | None = None
    models: Texts | None = None

    @field_validator("scopes")
    @classmethod
    def _has_no_scopes(cls, scopes: list[str] | None) -> list[str] | None:
        return no_scopes(scopes)

    def values(self, now_s: int) -> dict[str, object]:
        """What it changes."""
        found = self.given("models")
        if self.models is not None:
            found["models"] = tuple(self.models)
        if "expires_in_seconds" in self.model_fields_set:
            found["expires_s"] = now_s + self.expires_in_seconds
        return found


class KeysQuery(ListQuery):
    """Which keys to list."""

    owner_project_access: Literal["active", "inactive", "any"] = "any"
    """Keys go with their owners, so that all owners have access."""


class OwnerServiceAccount(BaseModel):
    """The service account that owns a key."""

    id: str
    name: str
    role: str
    created_at: int


class OwnerUser(OwnerServiceAccount):
    """The user who owns a key."""

    email: str


class OwnerObject(BaseModel):
    """Who owns a key."""

    type: Literal["user", "service_account"]
    service_account: OwnerServiceAccount | None = None
    user: OwnerUser | None = None

    @classmethod
    def of(cls, owner: KeyOwner) -> "OwnerObject":
        """An owner as the API shows it."""
        fields = {"id": owner.id, "name": owner.name, "role": owner.role}
        if owner.is_user:
            person = OwnerUser(**fields, email=owner.name, created_at=owner.created_s)
            return cls(type="user", user=person)
        account = OwnerServiceAccount(**fields, created_at=owner.created_s)
        return cls(type="service_account", service_account=account)


class KeyObject(BaseModel):
    """OpenAI's API key, with the models that it may use."""

    id: str
    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    name: str
    redacted_value: str
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    owner: OwnerObject
    owner_project_access: Literal["active", "inactive"] = "active"
    models: list[str] | None

    @classmethod
    def of(cls, row: ApiKeyRow, owner: KeyOwner) -> "KeyObject":
        """A row as the API shows it."""
        return cls(
            id=row.id,
            name=row.name,
            redacted_value=row.hint,
            created_at=row.created_s,
            last_used_at=row.last_used_s,
            expires_at=row.expires_s,
            owner=OwnerObject.of(owner),
            models=None if row.models is None else list(row.models),
        )


def api_keys_router(organization: Organization) -> APIRouter:
    """Routes that show, change and delete keys."""
    router = APIRouter()

    @router.get(KEYS)
    async def list_all(
        project_id: str, wanted: Annotated[KeysQuery, Depends(query(KeysQuery))]
    ) -> ListObject[KeyObject]:
        """List a project's keys."""
        page, owners = await organization.read(
            lambda connection: store.keys_with_owners(connection, project_id, wanted.cursor)
        )
        return listed(page, lambda row: KeyObject.of(row, owners[row.owner_id]))

    @router.get(KEY)
    async def retrieve(project_id: str, key_id: str) -> KeyObject:
        """Retrieve a key."""
        row = await organization.read(lambda c: store.api_key(c, project_id, key_id))
        return await _shown(row)

    @router.post(KEY)
    async def update(
        project_id: str, key_id: str, body: KeyUpdate, actor: CurrentActor
    ) -> KeyObject:
        """Change when a key expires, or which models it may use."""
        row = await organization.change(
            actor,
            lambda change: store.update_api_key(
                change, project_id, key_id, body.values(change.now_s)
            ),
        )
        return await _shown(row)

    @router.delete(KEY)
    async def delete(project_id: str, key_id: str, actor: CurrentActor) -> DeletedObject:
        """Delete a key; routers refuse it within a second."""
        await organization.change(
            actor, lambda change: store.delete_api_key(change, project_id, key_id)
        )
        return DeletedObject(id=key_id, object="organization.project.api_key.deleted")

    async def _shown(row: ApiKeyRow) -> KeyObject:
        owners = await organization.read(lambda connection: store.owners_of(connection, [row]))
        return KeyObject.of(row, owners[row.owner_id])

    return router
