"""Tables of files and uploads; see `gateway.store.tables`, whose `metadata` they are part of.

Their `project_id` is that of a project in a file as well, or empty where nobody is authenticated.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table

from gateway.store.tables import metadata


def _seq() -> Column[int]:
    # SQLite numbers rows by itself only if the column is an INTEGER.
    return Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


def _text(name: str) -> Column[str]:
    return Column(name, String, nullable=False, server_default="")


def _whole(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable, autoincrement=False)


files = Table(
    "files",
    metadata,
    _seq(),
    Column("id", String, nullable=False, unique=True),
    _text("project_id"),
    _text("purpose"),
    _text("filename"),
    _whole("bytes"),
    _text("sha256"),
    _whole("created_s"),
    _whole("expires_s", nullable=True),
    _whole("deleted_s", nullable=True),
    Index(None, "project_id", "seq"),
    Index(None, "project_id", "deleted_s", "purpose", "bytes"),
    Index(None, "expires_s"),
    Index(None, "deleted_s"),
)
"""Files whose bytes are in the storage. Deleted ones stay for a while, as places in lists."""
uploads = Table(
    "uploads",
    metadata,
    _seq(),
    Column("id", String, nullable=False, unique=True),
    _text("project_id"),
    _text("purpose"),
    _text("filename"),
    _text("mime_type"),
    _whole("bytes"),
    _text("status"),
    _whole("created_s"),
    _whole("expires_s"),
    _whole("file_expires_after_s", nullable=True),
    Column("file_id", String, nullable=True),
    Index(None, "project_id", "expires_s"),
    Index(None, "expires_s"),
)
"""Uploads of one file in parts; `bytes`: as announced."""
upload_parts = Table(
    "upload_parts",
    metadata,
    _seq(),
    Column("id", String, nullable=False, unique=True),
    _text("upload_id"),
    _text("project_id"),
    _whole("bytes"),
    _whole("created_s"),
    Index(None, "upload_id"),
    Index(None, "project_id", "bytes"),
)
