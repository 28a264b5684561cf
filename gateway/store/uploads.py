"""Uploads of files in parts, in the database; the bytes of their parts are in the storage."""

from collections.abc import Sequence
from typing import Literal

import msgspec
import sqlalchemy as sa

from gateway.errors.request import InvalidRequest
from gateway.errors.state import ObjectNotFound, StorageFull
from gateway.store.changes import new_id
from gateway.store.file_tables import upload_parts, uploads
from gateway.store.files import FileRow, check_room, create_file, used_bytes
from gateway.store.rows import row_of

FOLDER = "uploads"
"""Folder of the storage with the bytes of parts, each under its id."""
LIFETIME_S = 3_600
"""How long an upload may take."""
MAX_PARTS = 10_000
MAX_PENDING = 1_000
"""Most uploads of a project that have not ended."""

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]


class UploadRow(msgspec.Struct, frozen=True, kw_only=True):
    """An upload."""

    id: str
    project_id: str
    purpose: str
    filename: str
    mime_type: str
    bytes: int
    status: UploadStatus = "pending"
    created_s: int
    expires_s: int
    file_expires_after_s: int | None = None
    file_id: str | None = None


class PartRow(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an upload."""

    id: str
    upload_id: str
    project_id: str
    bytes: int
    created_s: int

    @property
    def key(self) -> str:
        """Key of its bytes in the storage."""
        return part_key(self.id)


def new_upload_id() -> str:
    """Make an id for an upload."""
    return new_id("upload_")


def new_part_id() -> str:
    """Make an id for a part."""
    return new_id("part_")


def part_key(part_id: str) -> str:
    """Key of a part's bytes in the storage."""
    return f"{FOLDER}/{part_id}"


def create_upload(connection: sa.Connection, row: UploadRow, limit_bytes: int) -> None:
    """Begin an upload; `limit_bytes`: of all files and parts of its project.

    Raises:
        StorageFull: with a file of that size, the project would have more; or it has
            `MAX_PENDING` uploads that have not ended.
    """
    query = sa.select(sa.func.count()).where(
        uploads.c.project_id == row.project_id,
        uploads.c.expires_s > row.created_s,
        uploads.c.status == "pending",
    )
    if (connection.scalar(query) or 0) >= MAX_PENDING:
        raise StorageFull(
            f"The project has {MAX_PENDING:,} uploads that have not ended, and cannot have more."
        )
    check_room(used_bytes(connection, row.project_id), row.bytes, limit_bytes)
    connection.execute(uploads.insert().values(**msgspec.structs.asdict(row)))


def upload(connection: sa.Connection, project_id: str, upload_id: str, now_s: int) -> UploadRow:
    """An upload of a project, with its status as of now.

    Raises:
        ObjectNotFound: the project has none with this id.
    """
    own = uploads.c.project_id == project_id
    row = connection.execute(sa.select(uploads).where(uploads.c.id == upload_id, own)).first()
    if row is None:
        raise ObjectNotFound.of("Upload", upload_id)
    found = row_of(row, UploadRow)
    if found.status == "pending" and found.expires_s <= now_s:
        return msgspec.structs.replace(found, status="expired")
    return found


def pending_upload(
    connection: sa.Connection, project_id: str, upload_id: str, now_s: int
) -> UploadRow:
    """An upload that has not ended.

    Raises:
        ObjectNotFound: the project has none with this id.
        InvalidRequest: it has ended.
    """
    found = upload(connection, project_id, upload_id, now_s)
    if found.status != "pending":
        raise InvalidRequest(f"The upload is {found.status}, so nothing can be done to it.")
    return found


def room_of_upload(connection: sa.Connection, project_id: str, upload_id: str, now_s: int) -> int:
    """Bytes of an upload that have not come yet.

    Raises:
        ObjectNotFound: the project has none with this id.
        InvalidRequest: it has ended, or has as many parts as it may.
    """
    row = pending_upload(connection, project_id, upload_id, now_s)
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(upload_parts.c.bytes), 0))
    count, came = connection.execute(query.where(upload_parts.c.upload_id == upload_id)).one()
    if count >= MAX_PARTS:
        raise InvalidRequest(f"The upload has {MAX_PARTS:,} parts, and cannot get more.")
    return row.bytes - int(came)


def add_part(connection: sa.Connection, row: PartRow, now_s: int, limit_bytes: int) -> None:
    """Add a part whose bytes are in the storage; `limit_bytes`: of all that its project has.

    Raises:
        InvalidRequest: the upload has ended meanwhile, or the part is more than it may get.
        StorageFull: with the part, its project would have more than `limit_bytes`.
    """
    if row.bytes > room_of_upload(connection, row.project_id, row.upload_id, now_s):
        raise InvalidRequest(
            "The parts have more bytes than the upload was announced to have.", "data"
        )
    check_room(used_bytes(connection, row.project_id), row.bytes, limit_bytes)
    connection.execute(upload_parts.insert().values(**msgspec.structs.asdict(row)))


def parts_of(connection: sa.Connection, upload_id: str) -> Sequence[PartRow]:
    """All parts of an upload, in the order in which they came."""
    query = sa.select(upload_parts).where(upload_parts.c.upload_id == upload_id)
    rows = connection.execute(query.order_by(upload_parts.c.seq))
    return [row_of(row, PartRow) for row in rows]


def complete_upload(
    connection: sa.Connection, row: UploadRow, made: FileRow, now_s: int, limit_bytes: int
) -> Sequence[PartRow]:
    """Have an upload's file exist; returns the parts, whose bytes are to be deleted afterwards.

    Raises:
        InvalidRequest: the upload has ended meanwhile.
        StorageFull: with the file, its project would have more than `limit_bytes`.
    """
    pending_upload(connection, row.project_id, row.id, now_s)
    parts = end_upload(connection, row.id, "completed", made.id)
    create_file(connection, made, limit_bytes)
    return parts


def end_upload(
    connection: sa.Connection, upload_id: str, status: UploadStatus, file_id: str | None = None
) -> Sequence[PartRow]:
    """Give an upload its last status; returns the parts, whose bytes are to be deleted."""
    parts = parts_of(connection, upload_id)
    connection.execute(upload_parts.delete().where(upload_parts.c.upload_id == upload_id))
    update = uploads.update().where(uploads.c.id == upload_id)
    connection.execute(update.values(status=status, file_id=file_id))
    return parts


def expire_uploads(
    connection: sa.Connection, now_s: int, most: int
) -> tuple[int, Sequence[PartRow]]:
    """End uploads that took too long, `most` of them; how many they were, and their parts."""
    query = sa.select(uploads.c.id).where(
        uploads.c.status == "pending", uploads.c.expires_s <= now_s
    )
    found = list(connection.scalars(query.limit(most)))
    parts = [part for each in found for part in end_upload(connection, str(each), "expired")]
    return len(found), parts


def forget_uploads(connection: sa.Connection, before_s: int, most: int) -> int:
    """Delete the rows of uploads that were to end before a time, `most` of them; how many."""
    is_over = uploads.c.status != "pending"
    old = sa.select(uploads.c.seq).where(uploads.c.expires_s < before_s, is_over).limit(most)
    return connection.execute(uploads.delete().where(uploads.c.seq.in_(old))).rowcount


def existing_parts(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    """Those of the ids whose parts exist."""
    query = sa.select(upload_parts.c.id).where(upload_parts.c.id.in_(ids))
    return {str(found) for found in connection.scalars(query)}
