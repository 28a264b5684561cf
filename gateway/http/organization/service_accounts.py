"""Service accounts of a project, and the keys that are created for them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, model_validator

from gateway.config.project_values import Text
from gateway.http.organization.new_keys import KeyCreation, NewKeyObject
from gateway.http.organization.parts import (
    PROJECT,
    CurrentActor,
    DeletedObject,
    ListObject,
    listed,
)
from gateway.http.organization.values import LifetimeS, ListQuery, Params, Texts
from gateway.http.query import query
from gateway.store import api_keys as key_store
from gateway.store import service_accounts as store
from gateway.store.api_keys import ApiKeyRow, KeyParams
from gateway.store.changes import Change
from gateway.store.organization import Organization
from gateway.store.service_accounts import ServiceAccountRow

ACCOUNTS = f"{PROJECT}/service_accounts"
ACCOUNT = f"{ACCOUNTS}/{{account_id}}"


class ServiceAccountCreation(Params):
    """Body that creates a service account and, unless it says otherwise, its first key."""

    name: Text
    create_service_account_only: bool | None = None
    expires_in_seconds: LifetimeS | None = None
    models: Texts | None = None
    """Models and adapters that the key may use; null: all of the project's."""

    @model_validator(mode="after")
    def _has_key(self) -> "ServiceAccountCreation":
        if self.create_service_account_only and self.expires_in_seconds is not None:
            raise ValueError("`expires_in_seconds` needs a key")
        return self

    @property
    def key(self) -> KeyParams:
        """The first key."""
        return KeyCreation(expires_in_seconds=self.expires_in_seconds, models=self.models).key


class ServiceAccountUpdate(Params):
    """Body that changes a service account."""

    name: Text = ""
    role: Literal["owner", "member"] = "member"


class ServiceAccountObject(BaseModel):
    """OpenAI's service account."""

    id: str
    object: Literal["organization.project.service_account"] = "organization.project.service_account"
    name: str
    role: Literal["owner", "member", "none"]
    created_at: int

    @classmethod
    def of(cls, row: ServiceAccountRow) -> "ServiceAccountObject":
        """A row as the API shows it."""
        return cls(id=row.id, name=row.name, role=row.role, created_at=row.created_s)


class NewServiceAccountObject(ServiceAccountObject):
    """A service account that has just been created, with its key."""

    api_key: NewKeyObject | None


def service_accounts_router(organization: Organization) -> APIRouter:
    """Routes that create, show, change and delete service accounts."""
    router = APIRouter()

    @router.post(ACCOUNTS)
    async def create(
        project_id: str, body: ServiceAccountCreation, actor: CurrentActor
    ) -> NewServiceAccountObject:
        """Create a service account; the answer has its key's secret."""
        account, key = await organization.change(
            actor, lambda change: _create(change, project_id, body)
        )
        return NewServiceAccountObject(
            **ServiceAccountObject.of(account).model_dump(),
            api_key=None if key is None else NewKeyObject.of(*key),
        )

    @router.get(ACCOUNTS)
    async def list_all(
        project_id: str, wanted: Annotated[ListQuery, Depends(query(ListQuery))]
    ) -> ListObject[ServiceAccountObject]:
        """List service accounts."""
        page = await organization.read(
            lambda connection: store.list_service_accounts(connection, project_id, wanted.cursor)
        )
        return listed(page, ServiceAccountObject.of)

    @router.get(ACCOUNT)
    async def retrieve(project_id: str, account_id: str) -> ServiceAccountObject:
        """Retrieve a service account."""
        row = await organization.read(
            lambda connection: store.service_account(connection, project_id, account_id)
        )
        return ServiceAccountObject.of(row)

    @router.post(ACCOUNT)
    async def update(
        project_id: str, account_id: str, body: ServiceAccountUpdate, actor: CurrentActor
    ) -> ServiceAccountObject:
        """Change a service account's name or role."""
        values = body.given("name", "role")
        row = await organization.change(
            actor, lambda c: store.update_service_account(c, project_id, account_id, values)
        )
        return ServiceAccountObject.of(row)

    @router.delete(ACCOUNT)
    async def delete(project_id: str, account_id: str, actor: CurrentActor) -> DeletedObject:
        """Delete a service account and its keys."""
        await organization.change(
            actor, lambda change: store.delete_service_account(change, project_id, account_id)
        )
        return DeletedObject(id=account_id, object="organization.project.service_account.deleted")

    @router.post(f"{ACCOUNT}/api_keys")
    async def create_key(
        project_id: str, account_id: str, body: KeyCreation, actor: CurrentActor
    ) -> NewKeyObject:
        """Create a key of a service account; the answer has its secret."""

        def work(change: Change) -> tuple[ApiKeyRow, str]:
            account = store.service_account(change.connection, project_id, account_id)
            return key_store.create_api_key(change, project_id, account.id, body.key)

        return NewKeyObject.of(*await organization.change(actor, work))

    return router


def _create(
    change: Change, project_id: str, body: ServiceAccountCreation
) -> tuple[ServiceAccountRow, tuple[ApiKeyRow, str] | None]:
    is_bare = bool(body.create_service_account_only)
    account = store.create_service_account(
        change, project_id, body.name, "none" if is_bare else "member"
    )
    if is_bare:
        return account, None
    return account, key_store.create_api_key(change, project_id, account.id, body.key)
