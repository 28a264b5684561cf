"""Databases for tests: SQLite in a folder of the test, and PostgreSQL where it is installed."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from gateway.store.database import Database
from gateway.store.tables import metadata
from tests.postgres import PostgresServer, missing


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL server."""
    if reason := missing():
        pytest.skip(f"PostgreSQL: {reason}")
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database, of each kind in turn; `database` empties it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/accounts.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with tables and no rows."""
    opened = await Database.open(database_url)
    await opened.write(empty)
    yield opened
    await opened.close()


def empty(connection: Connection) -> None:
    """Delete all rows."""
    for table in reversed(metadata.sorted_tables):
        connection.execute(table.delete())
