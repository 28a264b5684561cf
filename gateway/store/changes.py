"""One administrator's change: a transaction, who makes it, and its entry in the audit log."""

import secrets
import string
from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from gateway.store.tables import audit, state

Details = Mapping[str, object]
"""Fields of an object as the API shows them: none is a secret."""
_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 24
DIRECTORY = "directory"
"""Name of the counter of changes: routers fetch the directory if it has grown."""

DATABASE = "database"
"""Name of the database's id."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who changes something."""

    id: str
    """Id of the admin key, or of whoever a token stands for."""
    address: str = ""
    """Address of the client."""


class Change:
    """A transaction that changes the organization.

    The database runs one such transaction at a time: what it has read stays true to its end.
    """

    def __init__(self, connection: sa.Connection, actor: Actor, now_s: int) -> None:
        self.connection = connection
        self.actor = actor
        self.now_s = now_s
        self._has_changed = False

    def record(
        self,
        event: str,
        object_id: str,
        *,
        project_id: str | None = None,
        before: Details | None = None,
        after: Details | None = None,
    ) -> None:
        """Write an entry of the audit log, and tell routers that there is something new."""
        entry = audit.insert().values(
            id=new_id("audit_log-"),
            at_s=self.now_s,
            event=event,
            actor_id=self.actor.id,
            address=self.actor.address,
            project_id=project_id,
            object_id=object_id,
            before=before,
            after=after,
        )
        self.connection.execute(entry)
        if not self._has_changed:
            self._has_changed = True
            _count_change(self.connection)

    def record_setting(
        self,
        project_id: str,
        name: str,
        before: msgspec.Struct | None,
        after: msgspec.Struct | None,
    ) -> None:
        """Record that a setting of a project has changed, which has rows of its own."""
        self.record(
            "project.updated",
            project_id,
            project_id=project_id,
            before={name: before and msgspec.structs.asdict(before)},
            after={name: after and msgspec.structs.asdict(after)},
        )


def new_id(prefix: str) -> str:
    """Make an id such as OpenAI's: a prefix and random letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))


def directory_version(connection: sa.Connection) -> int:
    """Number of changes of the organization so far."""
    return stored_number(connection, DIRECTORY)


def database_id(connection: sa.Connection) -> int:
    """Random number that the database got when its tables were made; 0 if it has none."""
    return stored_number(connection, DATABASE)


def stored_number(connection: sa.Connection, name: str) -> int:
    """A number of the database's state; 0 if it has none."""
    return connection.scalar(sa.select(state.c.value).where(state.c.name == name)) or 0


def _count_change(connection: sa.Connection) -> None:
    counter = state.c.name == DIRECTORY
    update = state.update().where(counter).values(value=state.c.value + 1)
    if connection.execute(update).rowcount == 0:
        connection.execute(state.insert().values(name=DIRECTORY, value=1))
