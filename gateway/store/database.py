"""Opens the database, and runs transactions on it in threads of its own.

One thread writes, and one reads. A transaction that writes holds the database's one lock from its
first statement, also against another process (Serve may start a replacement before it stops the old
process): what it reads stays true until it commits.
"""

import asyncio
import contextlib
import importlib.util
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    SQLAlchemyError,
)

from gateway.errors.startup import ConfigError
from gateway.store.migration import migrate

LOCK_TIMEOUT_S = 30
STATEMENT_TIMEOUT_S = 300
"""The longest time of a statement of PostgreSQL's: migrations may take long, but one that never
ends would hold all others up."""
CONNECT_TIMEOUT_S = 5
OWNER_ONLY = 0o600
"""Mode of a new file: others on the machine need not read who has used what. SQLite gives the files
beside it the same."""
WRITER_LOCK = 0x67617465
"""Number of the advisory lock that writers of PostgreSQL hold."""
IS_WRITER = "is_writer"
ABOUT_DATA = (DataError, IntegrityError)
"""Errors of what is written. All others are of the database: it is gone, full or read-only, or its
rights or tables are wrong; whoever mends it must not find that rows are lost."""

Transaction = Connection
"""What a transaction is run with."""
T = TypeVar("T")


class DatabaseUnavailable(Exception):
    """The database cannot be used now: gone, full, read-only; nothing was committed."""


class Database:
    """An open database. Its methods are for one event loop; close it in the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = ThreadPoolExecutor(1, "database-writer")
        self._reader = ThreadPoolExecutor(1, "database-reader")
        self._unwritable_since_s: float | None = None

    @classmethod
    async def open(cls, url: str) -> Self:
        """Open a database, and bring its tables up to date; it may be read-only if they are.

        Raises:
            ConfigError: it is no URL of a database that we support; the message holds no secret. Or
                a newer version of the gateway has made its tables.
            DatabaseUnavailable: it cannot be reached.
        """
        database = cls(_engine(url))
        try:
            await database.write(migrate)
        except BaseException:
            await database.close()
            raise
        return database

    @property
    def unwritable_s(self) -> float:
        """For how long it has taken nothing, in seconds; 0 if the last transaction succeeded."""
        since_s = self._unwritable_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a transaction that writes; it is committed once this returns.

        Raises:
            DatabaseUnavailable: it could not be run; nothing was committed, or the answer was lost.
        """
        try:
            result = await self._run(self._writer, work, is_writer=True)
        except DatabaseUnavailable:
            if self._unwritable_since_s is None:
                self._unwritable_since_s = time.monotonic()
            raise
        self._unwritable_since_s = None
        return result

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a transaction that only reads.

        Raises:
            DatabaseUnavailable: it could not be run.
        """
        return await self._run(self._reader, work, is_writer=False)

    async def close(self) -> None:
        """Wait for what runs, and close all connections."""
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._reader.shutdown)
        self._engine.dispose()

    async def _run(
        self, thread: ThreadPoolExecutor, work: Callable[[Connection], T], *, is_writer: bool
    ) -> T:
        def run() -> T:
            try:
                with self._engine.connect() as bare:
                    connection = bare.execution_options(**{IS_WRITER: is_writer})
                    with connection.begin():
                        return work(connection)
            except DBAPIError as error:
                if not isinstance(error, ABOUT_DATA):
                    reason = _reason(error)
                    if password := self._engine.url.password:
                        reason = reason.replace(str(password), "<hidden>")
                    raise DatabaseUnavailable(reason) from None
                raise

        return await asyncio.get_running_loop().run_in_executor(thread, run)


def _engine(url: str) -> Engine:
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        options: dict[str, Any] = {"timeout": LOCK_TIMEOUT_S, "check_same_thread": False}
        with contextlib.suppress(OSError):  # SQLite says what is wrong
            Path(parsed.database or "").touch(OWNER_ONLY)
        engine = create_engine(parsed, connect_args=options, hide_parameters=True)
        event.listen(engine, "connect", _set_up_sqlite)
    else:
        options = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "ray-llm-gateway",
            "options": f"-c lock_timeout={LOCK_TIMEOUT_S}s"
            f" -c statement_timeout={STATEMENT_TIMEOUT_S}s -c timezone=UTC",
            "tcp_user_timeout": 1000 * LOCK_TIMEOUT_S,
            "keepalives_idle": LOCK_TIMEOUT_S,  # a machine that is gone sends no answer
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }
        engine = create_engine(
            parsed, connect_args=options, pool_pre_ping=True, hide_parameters=True
        )
    event.listen(engine, "begin", _begin)
    return engine


def parse_url(url: str) -> URL:
    """The URL of a database, with the driver that we use.

    Raises:
        ConfigError: it is none, or its driver is missing; the message holds no secret.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("database: is no URL of a database") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return parsed.set(drivername="sqlite+pysqlite")
    if backend != "postgresql":
        raise ConfigError(f"database: {backend} is not supported; use sqlite, postgresql")
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            "database: PostgreSQL needs psycopg: pip install 'ray-llm-gateway[postgres]'"
        )
    return parsed.set(drivername="postgresql+psycopg")


def _set_up_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's own
    connection.isolation_level = None  # SQLAlchemy begins transactions itself
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # engines forget what is committed
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    is_writer = connection.get_execution_options().get(IS_WRITER, False)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")
    elif is_writer:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")


def _reason(error: SQLAlchemyError) -> str:
    """First line of what the driver says; without the statement and its values."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return next(iter(str(cause).strip().splitlines()), type(cause).__name__)
