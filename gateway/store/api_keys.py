"""API keys in the database: hashes, never secrets."""

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from gateway.errors.administration import KeyExpired, TooManyKeys
from gateway.identity.api_key import PREFIX, key_hash, new_key
from gateway.store.changes import Change, new_id
from gateway.store.key_deletion import delete_keys
from gateway.store.pages import Cursor, Page, page_of
from gateway.store.projects import active_project, project
from gateway.store.rows import found_row
from gateway.store.tables import api_keys, service_accounts, users

MAX_VALID_KEYS = 2
"""Valid keys of one owner in a project: the one in use, and the one that replaces it."""


class ApiKeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """An API key, without its secret and its hash."""

    id: str
    project_id: str
    owner_id: str
    name: str
    hint: str
    models: tuple[str, ...] | None = None
    created_s: int
    expires_s: int | None = None
    last_used_s: int | None = None


class KeyOwner(msgspec.Struct, frozen=True, kw_only=True):
    """Owner of an API key: a service account or a user."""

    id: str
    name: str
    """Name of a service account, address of a user."""
    role: str
    created_s: int
    is_user: bool


class KeyParams(msgspec.Struct, frozen=True, kw_only=True):
    """What a new key is to be."""

    name: str
    expires_in_s: int | None = None
    models: tuple[str, ...] | None = None


def create_api_key(
    change: Change, project_id: str, owner_id: str, new: KeyParams
) -> tuple[ApiKeyRow, str]:
    """Create a key of an owner who is known to belong to the project; return its secret, too.

    Raises:
        TooManyKeys: the owner has as many valid ones as there may be.
    """
    active_project(change.connection, project_id)
    if _valid_count(change, project_id, owner_id) >= MAX_VALID_KEYS:
        raise TooManyKeys(
            f"`{owner_id}` has {MAX_VALID_KEYS} valid keys, which is the most. Delete one of them"
            " first, or create another service account."
        )
    made = new_key()
    expires_s = None if new.expires_in_s is None else change.now_s + new.expires_in_s
    row = ApiKeyRow(
        id=new_id("key_"),
        project_id=project_id,
        owner_id=owner_id,
        name=new.name,
        hint=f"{PREFIX}...{made.hint}",
        models=new.models,
        created_s=change.now_s,
        expires_s=expires_s,
    )
    values = msgspec.structs.asdict(row)
    change.connection.execute(
        api_keys.insert().values(hash=key_hash(made.secret.encode()), **values)
    )
    change.record("api_key.created", row.id, project_id=project_id, after=values)
    return row, made.secret


def api_key(connection: sa.Connection, project_id: str, key_id: str) -> ApiKeyRow:
    """A key of this project.

    Raises:
        NotFound: the project has none with this id.
    """
    project(connection, project_id)
    return found_row(connection, api_keys, ApiKeyRow, "API key", key_id, *_of(project_id))


def list_api_keys(connection: sa.Connection, project_id: str, cursor: Cursor) -> Page[ApiKeyRow]:
    """A page of a project's keys."""
    project(connection, project_id)
    of_project, is_there = _of(project_id)
    return page_of(connection, api_keys, cursor, ApiKeyRow, is_there, within=[of_project])


def update_api_key(
    change: Change, project_id: str, key_id: str, values: Mapping[str, object]
) -> ApiKeyRow:
    """Change a key's expiry or models.

    Raises:
        KeyExpired: it has expired, and does not come back.
    """
    active_project(change.connection, project_id)
    before = api_key(change.connection, project_id, key_id)
    if before.expires_s is not None and before.expires_s <= change.now_s:
        raise KeyExpired(f"The API key `{key_id}` has expired. Create another one.")
    after = msgspec.structs.replace(before, **values)
    if after != before:
        update = api_keys.update().where(api_keys.c.id == key_id)
        change.connection.execute(update.values(**values))
        change.record(
            "api_key.updated",
            key_id,
            project_id=project_id,
            before=msgspec.structs.asdict(before),
            after=msgspec.structs.asdict(after),
        )
    return after


def delete_api_key(change: Change, project_id: str, key_id: str) -> None:
    """Delete a key; routers refuse it within a second."""
    before = api_key(change.connection, project_id, key_id)
    delete_keys(change.connection, change.now_s, api_keys.c.id == key_id)
    change.record(
        "api_key.deleted", key_id, project_id=project_id, before=msgspec.structs.asdict(before)
    )


def keys_with_owners(
    connection: sa.Connection, project_id: str, cursor: Cursor
) -> tuple[Page[ApiKeyRow], dict[str, KeyOwner]]:
    """A page of a project's keys, and their owners by id."""
    page = list_api_keys(connection, project_id, cursor)
    return page, owners_of(connection, page.rows)


def owners_of(connection: sa.Connection, keys: Sequence[ApiKeyRow]) -> dict[str, KeyOwner]:
    """Owners of keys, by id."""
    ids = {key.owner_id for key in keys}
    accounts = sa.select(service_accounts).where(service_accounts.c.id.in_(ids))
    people = sa.select(users).where(users.c.id.in_(ids))
    owners = [
        KeyOwner(id=row.id, name=row.name, role=row.role, created_s=row.created_s, is_user=False)
        for row in connection.execute(accounts)
    ]
    owners += [
        KeyOwner(id=row.id, name=row.email, role=row.role, created_s=row.created_s, is_user=True)
        for row in connection.execute(people)
    ]
    return {owner.id: owner for owner in owners}


def _valid_count(change: Change, project_id: str, owner_id: str) -> int:
    is_valid = sa.or_(api_keys.c.expires_s.is_(None), api_keys.c.expires_s > change.now_s)
    query = sa.select(sa.func.count()).select_from(api_keys)
    query = query.where(api_keys.c.owner_id == owner_id, is_valid, *_of(project_id))
    return change.connection.execute(query).scalar_one()


def _of(project_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return api_keys.c.project_id == project_id, api_keys.c.deleted_s.is_(None)
