"""Indexes by which it is known what a project uses, without a look at each of its rows."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make them."""
    op.create_index(
        "ix_files_project_id_deleted_s_purpose_bytes",
        "files",
        ["project_id", "deleted_s", "purpose", "bytes"],
    )
    op.create_index("ix_uploads_project_id_expires_s", "uploads", ["project_id", "expires_s"])
    op.create_index("ix_upload_parts_project_id_bytes", "upload_parts", ["project_id", "bytes"])
    op.drop_index("ix_upload_parts_project_id", "upload_parts")
