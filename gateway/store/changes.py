"""One administrator's change: a transaction, who makes it, and its entry in the audit log."""

import secrets
import string
from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from gateway.store.organization_tables import audit_logs, organization_version

Details = Mapping[str, object]
"""Fields of an object as the API shows them: none is a secret."""
_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 24
_VERSION_ROW = 1


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who changes something."""

    id: str
    """Id of the admin key, or of whoever a token stands for."""
    address: str = ""
    """Address of the client."""


class Change:
    """A transaction that changes the organization; others wait for its end."""

    def __init__(self, connection: sa.Connection, actor: Actor, now_s: int) -> None:
        self.connection = connection
        self.actor = actor
        self.now_s = now_s
        self._has_changed = False
        self._lock()

    def record(
        self,
        event: str,
        resource_id: str,
        *,
        project_id: str | None = None,
        before: Details | None = None,
        after: Details | None = None,
    ) -> None:
        """Write an entry of the audit log, and tell routers that there is something new."""
        entry = audit_logs.insert().values(
            id=new_id("audit_log-"),
            effective_at=self.now_s,
            type=event,
            actor_id=self.actor.id,
            actor_address=self.actor.address,
            project_id=project_id,
            resource_id=resource_id,
            before=before,
            after=after,
        )
        self.connection.execute(entry)
        if not self._has_changed:
            self._has_changed = True
            version = organization_version.c.version
            row = organization_version.update().where(organization_version.c.id == _VERSION_ROW)
            self.connection.execute(row.values(version=version + 1))

    def _lock(self) -> None:
        """Let no other change begin, so that what this one has read remains true."""
        query = sa.select(organization_version.c.version)
        query = query.where(organization_version.c.id == _VERSION_ROW).with_for_update()
        if self.connection.execute(query).scalar() is None:
            self.connection.execute(
                organization_version.insert().values(id=_VERSION_ROW, version=0)
            )


def new_id(prefix: str) -> str:
    """Make an id such as OpenAI's: a prefix and random letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))


def organization_version_of(connection: sa.Connection) -> int:
    """Number of changes so far."""
    query = sa.select(organization_version.c.version)
    return connection.execute(query).scalar() or 0
