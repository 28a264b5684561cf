"""Files and uploads."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), server_default="", nullable=False)


def _whole(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=nullable)


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.String(), nullable=False)


def upgrade() -> None:
    """Make their tables."""
    op.create_table(
        "files",
        _seq(),
        _id(),
        *(_text(name) for name in ("project_id", "purpose", "filename")),
        _whole("bytes"),
        _text("sha256"),
        _whole("created_s"),
        _whole("expires_s", nullable=True),
        _whole("deleted_s", nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_files")),
        sa.UniqueConstraint("id", name=op.f("uq_files_id")),
    )
    op.create_index(op.f("ix_files_project_id_seq"), "files", ["project_id", "seq"])
    op.create_index(op.f("ix_files_expires_s"), "files", ["expires_s"])
    op.create_index(op.f("ix_files_deleted_s"), "files", ["deleted_s"])
    op.create_table(
        "uploads",
        _seq(),
        _id(),
        *(_text(name) for name in ("project_id", "purpose", "filename", "mime_type")),
        _whole("bytes"),
        _text("status"),
        _whole("created_s"),
        _whole("expires_s"),
        _whole("file_expires_after_s", nullable=True),
        sa.Column("file_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_uploads")),
        sa.UniqueConstraint("id", name=op.f("uq_uploads_id")),
    )
    op.create_index(op.f("ix_uploads_expires_s"), "uploads", ["expires_s"])
    op.create_table(
        "upload_parts",
        _seq(),
        _id(),
        *(_text(name) for name in ("upload_id", "project_id")),
        _whole("bytes"),
        _whole("created_s"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_upload_parts")),
        sa.UniqueConstraint("id", name=op.f("uq_upload_parts_id")),
    )
    op.create_index(op.f("ix_upload_parts_upload_id"), "upload_parts", ["upload_id"])
    op.create_index(op.f("ix_upload_parts_project_id"), "upload_parts", ["project_id"])
