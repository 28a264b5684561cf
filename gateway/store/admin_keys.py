"""Admin keys in the database: hashes, never secrets."""

import msgspec
import sqlalchemy as sa

from gateway.identity.api_key import ADMIN_PREFIX, key_hash, new_key
from gateway.store.changes import Change, new_id
from gateway.store.pages import Cursor, Page, page_of
from gateway.store.rows import found_row
from gateway.store.tables import admin_keys


class AdminKeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """An admin key, without its secret and its hash."""

    id: str
    name: str
    hint: str
    owner_id: str
    """Who created it."""
    created_s: int
    expires_s: int | None = None
    last_used_s: int | None = None


def create_admin_key(
    change: Change, name: str, expires_in_s: int | None
) -> tuple[AdminKeyRow, str]:
    """Create an admin key; return its secret, too."""
    made = new_key(ADMIN_PREFIX)
    row = AdminKeyRow(
        id=new_id("key_"),
        name=name,
        hint=f"{ADMIN_PREFIX}...{made.hint}",
        owner_id=change.actor.id,
        created_s=change.now_s,
        expires_s=None if expires_in_s is None else change.now_s + expires_in_s,
    )
    values = msgspec.structs.asdict(row)
    change.connection.execute(
        admin_keys.insert().values(hash=key_hash(made.secret.encode()), **values)
    )
    change.record("api_key.created", row.id, after=values)
    return row, made.secret


def admin_key(connection: sa.Connection, key_id: str) -> AdminKeyRow:
    """An admin key.

    Raises:
        NotFound: there is none with this id.
    """
    return found_row(
        connection,
        admin_keys,
        AdminKeyRow,
        "admin API key",
        key_id,
        admin_keys.c.deleted_s.is_(None),
    )


def list_admin_keys(connection: sa.Connection, cursor: Cursor) -> Page[AdminKeyRow]:
    """A page of admin keys."""
    is_there = admin_keys.c.deleted_s.is_(None)
    return page_of(connection, admin_keys, cursor, AdminKeyRow, is_there)


def delete_admin_key(change: Change, key_id: str) -> None:
    """Delete an admin key; routers refuse it within a second."""
    before = admin_key(change.connection, key_id)
    update = admin_keys.update().where(admin_keys.c.id == key_id)
    change.connection.execute(update.values(deleted_s=change.now_s))
    change.record("api_key.deleted", key_id, before=msgspec.structs.asdict(before))
