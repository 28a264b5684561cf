"""The database is opened, migrated and used by one writer at a time, on SQLite and PostgreSQL."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from gateway.errors.startup import ConfigError
from gateway.store.changes import database_id
from gateway.store.database import Database, DatabaseUnavailable, parse_url
from gateway.store.tables import metadata, state
from tests.postgres import PostgresServer


def _modes(folder: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in folder.iterdir()]


def _differences(connection: Connection) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_the_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    """An empty database gets exactly the tables of `tables.py`."""
    assert await database.read(_differences) == []


async def test_opening_a_database_again_changes_nothing(
    database: Database, database_url: str
) -> None:
    """Migrations that have run are not run again, and rows stay."""
    await database.write(lambda c: c.execute(insert(state).values(name="x", value=7)))

    again = await Database.open(database_url)

    assert await again.read(lambda c: c.scalar(select(state.c.value))) == 7
    await again.close()


async def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    """What a failed transaction has written is rolled back."""

    def fail(connection: Connection) -> None:
        connection.execute(insert(state).values(name="x", value=1))
        raise KeyError("x")

    with pytest.raises(KeyError):
        await database.write(fail)

    assert await database.read(lambda c: c.scalar(select(state.c.value))) is None


async def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """Also the files that SQLite puts beside it."""
    database = await Database.open(f"sqlite:///{tmp_path}/accounts.db")
    await database.write(lambda c: c.execute(insert(state).values(name="x", value=1)))

    modes = _modes(tmp_path)

    assert len(modes) > 1
    assert set(modes) == {0o600}
    await database.close()


async def test_an_error_does_not_show_what_was_written(database: Database) -> None:
    """Hashes of keys and names of users would come into the log with it."""

    def write_twice(connection: Connection) -> None:
        for _ in range(2):
            connection.execute(insert(state).values(name="x", value=123454321))

    with pytest.raises(IntegrityError) as raised:
        await database.write(write_twice)
    assert "123454321" not in str(raised.value)


async def test_two_processes_write_one_after_the_other(
    database: Database, database_url: str
) -> None:
    """A transaction sees all that another writer has committed: no update is lost."""
    await database.write(lambda c: c.execute(insert(state).values(name="x", value=0)))
    other = await Database.open(database_url)

    def increment(connection: Connection) -> None:
        value = connection.scalar(select(state.c.value)) or 0
        connection.execute(update(state).values(value=value + 1))

    await asyncio.gather(*(each.write(increment) for each in (database, other) for _ in range(25)))

    assert await database.read(lambda c: c.scalar(select(state.c.value))) == 50
    await other.close()


async def test_no_statement_of_postgresql_takes_for_ever(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that does is ended, and others go on."""
    monkeypatch.setattr("gateway.store.database.STATEMENT_TIMEOUT_S", 1)
    database = await Database.open(postgres.url)
    with pytest.raises(DatabaseUnavailable):
        await database.write(lambda c: c.scalar(text("SELECT pg_sleep(60)")))
    assert await database.write(lambda c: c.scalar(text("SELECT 1"))) == 1
    await database.close()


async def test_a_restart_of_postgresql_is_survived(postgres: PostgresServer) -> None:
    """Meanwhile the database is unavailable; afterwards the same object works again."""
    database = await Database.open(postgres.url)
    query: Callable[[Connection], Any] = lambda c: c.scalar(text("SELECT 1"))  # noqa: E731

    postgres.stop(signal.SIGQUIT)
    with pytest.raises(DatabaseUnavailable):
        await database.write(query)
    postgres.start()

    assert await database.write(query) == 1
    await database.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [("nonsense", "no URL"), ("mysql://u:secret@h/d", "mysql is not supported")],
)
def test_other_databases_are_refused(url: str, message: str) -> None:
    """The message says what is wrong, and shows no password."""
    with pytest.raises(ConfigError, match=message) as raised:
        parse_url(url)
    assert "secret" not in str(raised.value)


async def test_a_database_that_is_read_only_is_opened_if_its_tables_are_right(
    tmp_path: Path,
) -> None:
    """Routers need what is in it; for how long nothing could be written is known."""
    path = tmp_path / "accounts.db"
    await (await Database.open(f"sqlite:///{path}")).close()

    database = await Database.open(f"sqlite:///file:{path}?mode=ro&uri=true")

    with pytest.raises(DatabaseUnavailable):
        await database.write(lambda c: c.execute(insert(state).values(name="x", value=7)))
    assert await database.read(database_id) > 0
    assert database.unwritable_s > 0
    await database.close()


async def test_tables_of_a_newer_version_are_named(database: Database, database_url: str) -> None:
    """Whoever goes back to an earlier version learns what to do."""
    newest = await database.read(
        lambda c: c.scalar(text("SELECT version_num FROM alembic_version"))
    )
    await database.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num='9999'")))
    try:
        with pytest.raises(ConfigError, match="version 9999, which a newer version"):
            await Database.open(database_url)
    finally:
        await database.write(
            lambda c: c.execute(text("UPDATE alembic_version SET version_num=:v"), {"v": newest})
        )


async def test_an_unreachable_database_is_named_without_its_password() -> None:
    """Nothing listens there: the reason holds no secret."""
    with pytest.raises(DatabaseUnavailable) as raised:
        await Database.open("postgresql://u:secret@127.0.0.1:9/d")
    assert "secret" not in str(raised.value)
