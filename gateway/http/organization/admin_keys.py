"""Admin keys: `/v1/organization/admin_api_keys`."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from gateway.config.project_values import Text
from gateway.http.organization.parts import CurrentActor, DeletedObject, ListObject, listed
from gateway.http.organization.values import LifetimeS, OrderedQuery, Params
from gateway.http.query import query
from gateway.store import admin_keys as store
from gateway.store.admin_keys import AdminKeyRow
from gateway.store.organization import Organization

ADMIN_KEYS = "/v1/organization/admin_api_keys"
ADMIN_KEY = f"{ADMIN_KEYS}/{{key_id}}"


class AdminKeyCreation(Params):
    """Body that creates an admin key."""

    name: Text
    expires_in_seconds: LifetimeS | None = None


class AdminKeyOwner(BaseModel):
    """Who created an admin key."""

    type: Literal["user"] = "user"
    object: Literal["organization.user"] = "organization.user"
    id: str
    name: str
    created_at: int
    role: Literal["owner"] = "owner"


class AdminKeyObject(BaseModel):
    """OpenAI's admin key."""

    id: str
    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"
    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    owner: AdminKeyOwner

    @classmethod
    def of(cls, row: AdminKeyRow) -> "AdminKeyObject":
        """A row as the API shows it."""
        return cls(
            id=row.id,
            name=row.name,
            redacted_value=row.hint,
            created_at=row.created_s,
            expires_at=row.expires_s,
            last_used_at=row.last_used_s,
            owner=AdminKeyOwner(id=row.owner_id, name=row.owner_id, created_at=row.created_s),
        )


class NewAdminKeyObject(AdminKeyObject):
    """An admin key that has just been created, with its secret."""

    value: str


def admin_keys_router(organization: Organization) -> APIRouter:
    """Routes that create, show and delete admin keys."""
    router = APIRouter()

    @router.post(ADMIN_KEYS)
    async def create(body: AdminKeyCreation, actor: CurrentActor) -> NewAdminKeyObject:
        """Create an admin key; the answer has its secret."""
        row, secret = await organization.change(
            actor, lambda c: store.create_admin_key(c, body.name, body.expires_in_seconds)
        )
        return NewAdminKeyObject(**AdminKeyObject.of(row).model_dump(), value=secret)

    @router.get(ADMIN_KEYS)
    async def list_all(
        wanted: Annotated[OrderedQuery, Depends(query(OrderedQuery))],
    ) -> ListObject[AdminKeyObject]:
        """List admin keys."""
        page = await organization.read(lambda c: store.list_admin_keys(c, wanted.cursor))
        return listed(page, AdminKeyObject.of)

    @router.get(ADMIN_KEY)
    async def retrieve(key_id: str) -> AdminKeyObject:
        """Retrieve an admin key."""
        return AdminKeyObject.of(await organization.read(lambda c: store.admin_key(c, key_id)))

    @router.delete(ADMIN_KEY)
    async def delete(key_id: str, actor: CurrentActor) -> DeletedObject:
        """Delete an admin key; routers refuse it within a second."""
        await organization.change(actor, lambda change: store.delete_admin_key(change, key_id))
        return DeletedObject(id=key_id, object="organization.admin_api_key.deleted")

    return router
