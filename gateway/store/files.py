"""Files of projects in the database; their bytes are in the storage."""

from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa

from gateway.errors.state import ObjectNotFound, StorageFull
from gateway.ledger.calendar import DAY_S
from gateway.store.changes import new_id
from gateway.store.file_tables import files, upload_parts
from gateway.store.pages import Cursor, Page, page_of
from gateway.store.rows import row_of

FILE_PREFIX = "file-"
FOLDER = "files"
"""Folder of the storage with the bytes of files, each under its id."""
BATCH_FILE_S = 30 * DAY_S
"""How long files of batches are kept, unless their `expires_after` says otherwise."""

BATCH_OUTPUT = "batch_output"
"""Purpose of the results of batches, which the gateway makes and no limit counts."""
MAX_FILES = 100_000
"""Most files of a project."""


class FileRow(msgspec.Struct, frozen=True, kw_only=True):
    """A file."""

    id: str
    project_id: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    created_s: int
    expires_s: int | None = None

    @property
    def key(self) -> str:
        """Key of its bytes in the storage."""
        return file_key(self.id)


def new_file_id() -> str:
    """Make an id for a file."""
    return new_id(FILE_PREFIX)


def file_key(file_id: str) -> str:
    """Key of a file's bytes in the storage."""
    return f"{FOLDER}/{file_id}"


def create_file(connection: sa.Connection, row: FileRow, limit_bytes: int | None = None) -> None:
    """Have a file exist whose bytes are in the storage.

    `limit_bytes`: of all files and parts of its project; None: unlimited, as for what the gateway
    makes itself.

    Raises:
        StorageFull: with it, the project would have more, or more than `MAX_FILES` files.
    """
    if limit_bytes is not None:
        check_count(connection, row.project_id)
        check_room(used_bytes(connection, row.project_id), row.bytes, limit_bytes)
    connection.execute(files.insert().values(**msgspec.structs.asdict(row)))


def check_room(used: int, more: int, limit_bytes: int) -> None:
    """Check that a project that uses some bytes may have more.

    Raises:
        StorageFull: it may not.
    """
    if used + more > limit_bytes:
        raise StorageFull(
            f"The project's files would take {used + more:,} bytes, and {limit_bytes:,} are"
            " allowed. Delete files that are not needed any more."
        )


def used_bytes(connection: sa.Connection, project_id: str) -> int:
    """Bytes of all files and parts of uploads of a project, but for results of batches."""
    of_files = sa.select(sa.func.coalesce(sa.func.sum(files.c.bytes), 0)).where(
        *_counts(project_id)
    )
    of_parts = sa.select(sa.func.coalesce(sa.func.sum(upload_parts.c.bytes), 0)).where(
        upload_parts.c.project_id == project_id
    )
    return int(connection.scalar(of_files) or 0) + int(connection.scalar(of_parts) or 0)


def check_count(connection: sa.Connection, project_id: str) -> None:
    """Check that a project may have one file more.

    Raises:
        StorageFull: it may not.
    """
    query = sa.select(sa.func.count()).select_from(files).where(*_counts(project_id))
    if (connection.scalar(query) or 0) >= MAX_FILES:
        raise StorageFull(
            f"The project has {MAX_FILES:,} files, and cannot have more. Delete files that are not"
            " needed any more."
        )


def file(connection: sa.Connection, project_id: str, file_id: str, now_s: int) -> FileRow:
    """A file of a project.

    Raises:
        ObjectNotFound: the project has none with this id, or none any more.
    """
    query = sa.select(files).where(
        files.c.id == file_id, files.c.project_id == project_id, *_is_there(now_s)
    )
    row = connection.execute(query).first()
    if row is None:
        raise ObjectNotFound.of("File", file_id)
    return row_of(row, FileRow)


def list_files(
    connection: sa.Connection, project_id: str, cursor: Cursor, purpose: str | None, now_s: int
) -> Page[FileRow]:
    """A page of a project's files; `purpose`: only those with it."""
    conditions = _is_there(now_s)
    if purpose is not None:
        conditions.append(files.c.purpose == purpose)
    own = files.c.project_id == project_id
    return page_of(connection, files, cursor, FileRow, *conditions, within=[own])


def delete_file(connection: sa.Connection, project_id: str, file_id: str, now_s: int) -> FileRow:
    """Delete a file; its bytes are to be deleted afterwards.

    Raises:
        ObjectNotFound: the project has none with this id, or none any more.
    """
    row = file(connection, project_id, file_id, now_s)
    connection.execute(_deletion([row.id], now_s))
    return row


def delete_expired_files(connection: sa.Connection, now_s: int, most: int) -> Sequence[FileRow]:
    """Delete `most` files that have expired; their bytes are to be deleted afterwards."""
    query = sa.select(files).where(files.c.deleted_s.is_(None), files.c.expires_s <= now_s)
    rows = [row_of(row, FileRow) for row in connection.execute(query.limit(most))]
    if rows:
        connection.execute(_deletion([row.id for row in rows], now_s))
    return rows


def forget_deleted_files(connection: sa.Connection, before_s: int, most: int) -> int:
    """Delete the rows of files that were deleted before a time, `most` of them; how many."""
    old = sa.select(files.c.seq).where(files.c.deleted_s < before_s).limit(most)
    return connection.execute(files.delete().where(files.c.seq.in_(old))).rowcount


def existing_files(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    """Those of the ids whose files exist."""
    query = sa.select(files.c.id).where(files.c.id.in_(list(ids)), files.c.deleted_s.is_(None))
    return {str(found) for found in connection.scalars(query)}


def _counts(project_id: str) -> list[sa.ColumnElement[bool]]:
    """Conditions of the files that limits count; an index has all that is in them."""
    return [
        files.c.project_id == project_id,
        files.c.deleted_s.is_(None),
        files.c.purpose != BATCH_OUTPUT,
    ]


def _is_there(now_s: int) -> list[sa.ColumnElement[bool]]:
    is_fresh = sa.or_(files.c.expires_s.is_(None), files.c.expires_s > now_s)
    return [files.c.deleted_s.is_(None), is_fresh]


def _deletion(ids: list[str], now_s: int) -> sa.Update:
    return files.update().where(files.c.id.in_(ids)).values(deleted_s=now_s)
