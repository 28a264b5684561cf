"""Users of the organization and of projects: labels of people, who may own keys."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, model_validator

from gateway.config.project_values import Text
from gateway.http.organization.new_keys import KeyCreation, NewKeyObject
from gateway.http.organization.parts import (
    PROJECT,
    CurrentActor,
    DeletedObject,
    ListObject,
    listed,
)
from gateway.http.organization.values import ListQuery, Params, Texts
from gateway.http.query import query
from gateway.store import api_keys as key_store
from gateway.store import project_users as member_store
from gateway.store import users as store
from gateway.store.api_keys import ApiKeyRow
from gateway.store.changes import Change
from gateway.store.organization import Organization
from gateway.store.project_users import ProjectUserRow
from gateway.store.users import UserRow

USERS = "/v1/organization/users"
USER = f"{USERS}/{{user_id}}"
MEMBERS = f"{PROJECT}/users"
MEMBER = f"{MEMBERS}/{{user_id}}"


class UsersQuery(ListQuery):
    """Which users to list."""

    emails: Texts = Field(default_factory=list)


class UserUpdate(Params):
    """Body that changes a user."""

    role: Literal["owner", "reader"]


class MemberCreation(Params):
    """Body that adds a user to a project; an unknown address becomes a user."""

    role: Literal["owner", "member"]
    email: Text | None = None
    user_id: Text | None = None

    @model_validator(mode="after")
    def _names_one(self) -> "MemberCreation":
        if (self.email is None) == (self.user_id is None):
            raise ValueError("needs either `email` or `user_id`")
        return self


class MemberUpdate(Params):
    """Body that changes a user's role in a project."""

    role: Literal["owner", "member"]


class UserObject(BaseModel):
    """OpenAI's user of an organization."""

    id: str
    object: Literal["organization.user"] = "organization.user"
    name: str
    email: str
    role: str
    added_at: int

    @classmethod
    def of(cls, row: UserRow) -> "UserObject":
        """A row as the API shows it."""
        return cls(
            id=row.id, name=row.email, email=row.email, role=row.role, added_at=row.created_s
        )


class MemberObject(BaseModel):
    """OpenAI's user of a project."""

    id: str
    object: Literal["organization.project.user"] = "organization.project.user"
    name: str
    email: str
    role: str
    added_at: int

    @classmethod
    def of(cls, row: ProjectUserRow) -> "MemberObject":
        """A row as the API shows it."""
        return cls(
            id=row.id, name=row.email, email=row.email, role=row.role, added_at=row.created_s
        )


def users_router(organization: Organization) -> APIRouter:
    """Routes that show, change and remove users."""
    router = APIRouter()

    @router.get(USERS)
    async def list_all(
        wanted: Annotated[UsersQuery, Depends(query(UsersQuery))],
    ) -> ListObject[UserObject]:
        """List users."""
        page = await organization.read(
            lambda connection: store.list_users(connection, wanted.cursor, wanted.emails)
        )
        return listed(page, UserObject.of)

    @router.get(USER)
    async def retrieve(user_id: str) -> UserObject:
        """Retrieve a user."""
        return UserObject.of(await organization.read(lambda c: store.user(c, user_id)))

    @router.post(USER)
    async def update(user_id: str, body: UserUpdate, actor: CurrentActor) -> UserObject:
        """Change a user's role, which is a label."""
        row = await organization.change(
            actor, lambda change: store.update_user(change, user_id, body.role)
        )
        return UserObject.of(row)

    @router.delete(USER)
    async def delete(user_id: str, actor: CurrentActor) -> DeletedObject:
        """Remove a user from all projects, and delete the user's keys."""
        await organization.change(actor, lambda change: store.delete_user(change, user_id))
        return DeletedObject(id=user_id, object="organization.user.deleted")

    return router


def project_users_router(organization: Organization) -> APIRouter:
    """Routes that add users to projects, show, change and remove them."""
    router = APIRouter()

    @router.post(MEMBERS)
    async def create(project_id: str, body: MemberCreation, actor: CurrentActor) -> MemberObject:
        """Add a user to a project."""
        row = await organization.change(actor, lambda change: _add(change, project_id, body))
        return MemberObject.of(row)

    @router.get(MEMBERS)
    async def list_all(
        project_id: str, wanted: Annotated[ListQuery, Depends(query(ListQuery))]
    ) -> ListObject[MemberObject]:
        """List a project's users."""
        page = await organization.read(
            lambda c: member_store.list_project_users(c, project_id, wanted.cursor)
        )
        return listed(page, MemberObject.of)

    @router.get(MEMBER)
    async def retrieve(project_id: str, user_id: str) -> MemberObject:
        """Retrieve a project's user."""
        row = await organization.read(
            lambda connection: member_store.project_user(connection, project_id, user_id)
        )
        return MemberObject.of(row)

    @router.post(MEMBER)
    async def update(
        project_id: str, user_id: str, body: MemberUpdate, actor: CurrentActor
    ) -> MemberObject:
        """Change a user's role in a project, which is a label."""
        row = await organization.change(
            actor,
            lambda change: member_store.update_project_user(change, project_id, user_id, body.role),
        )
        return MemberObject.of(row)

    @router.delete(MEMBER)
    async def delete(project_id: str, user_id: str, actor: CurrentActor) -> DeletedObject:
        """Remove a user from a project, and delete the user's keys there."""
        await organization.change(
            actor, lambda change: member_store.remove_project_user(change, project_id, user_id)
        )
        return DeletedObject(id=user_id, object="organization.project.user.deleted")

    @router.post(f"{MEMBER}/api_keys")
    async def create_key(
        project_id: str, user_id: str, body: KeyCreation, actor: CurrentActor
    ) -> NewKeyObject:
        """Create a key of a user, which OpenAI's API cannot; the answer has its secret."""

        def work(change: Change) -> tuple[ApiKeyRow, str]:
            owner = member_store.project_user(change.connection, project_id, user_id)
            return key_store.create_api_key(change, project_id, owner.id, body.key)

        return NewKeyObject.of(*await organization.change(actor, work))

    return router


def _add(change: Change, project_id: str, body: MemberCreation) -> ProjectUserRow:
    user_id = body.user_id
    if body.email is not None:
        known = store.find_user(change.connection, body.email)
        user_id = (known or store.add_user(change, body.email, "reader")).id
    return member_store.add_project_user(change, project_id, user_id or "", body.role)
