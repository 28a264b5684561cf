"""Tables of files and uploads; see `gateway.store.tables`, whose `metadata` they are part of.

Their `project_id` is that of a project in a file as well, or empty where nobody is authenticated.
"""

from sqlalchemy import Column, Index, String, Table

from gateway.store.columns import identifier, order, text, whole
from gateway.store.tables import metadata

files = Table(
    "files",
    metadata,
    order(),
    identifier(),
    text("project_id"),
    text("purpose"),
    text("filename"),
    whole("bytes"),
    text("sha256"),
    whole("created_s"),
    whole("expires_s", nullable=True),
    whole("deleted_s", nullable=True),
    Index(None, "project_id", "seq"),
    Index(None, "project_id", "deleted_s", "purpose", "bytes"),
    Index(None, "expires_s"),
    Index(None, "deleted_s"),
)
"""Files whose bytes are in the storage. Deleted ones stay for a while, as places in lists."""
uploads = Table(
    "uploads",
    metadata,
    order(),
    identifier(),
    text("project_id"),
    text("purpose"),
    text("filename"),
    text("mime_type"),
    whole("bytes"),
    text("status"),
    whole("created_s"),
    whole("expires_s"),
    whole("file_expires_after_s", nullable=True),
    Column("file_id", String, nullable=True),
    Index(None, "project_id", "expires_s"),
    Index(None, "expires_s"),
)
"""Uploads of one file in parts; `bytes`: as announced."""
upload_parts = Table(
    "upload_parts",
    metadata,
    order(),
    identifier(),
    text("upload_id"),
    text("project_id"),
    whole("bytes"),
    whole("created_s"),
    Index(None, "upload_id"),
    Index(None, "project_id", "bytes"),
)
