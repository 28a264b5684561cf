"""Batches, and the parts of their results."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

WORDS = (
    *("status", "endpoint", "model", "input_file_id", "input_key", "completion_window"),
    *("output_file_id", "error_file_id", "plan_key", "worker"),
)
MOMENTS = (
    *("in_progress_s", "finalizing_s", "completed_s", "failed_s"),
    *("expired_s", "cancelling_s", "cancelled_s", "deleted_s"),
)
COUNTS = (
    *("total", "lines", "completed", "failed", "unanswered", "input_tokens", "cached_tokens"),
    *("output_tokens", "reasoning_tokens", "epoch", "lease_until_s"),
)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "batches",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        *(sa.Column(name, sa.String(), server_default="", nullable=False) for name in WORDS),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
        sa.Column("expires_s", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in MOMENTS),
        sa.Column("output_lifetime_s", sa.BigInteger()),
        sa.Column("metadata", sa.JSON()),
        sa.Column("errors", sa.JSON()),
        *(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in COUNTS),
        sa.PrimaryKeyConstraint("seq", name="pk_batches"),
        sa.UniqueConstraint("id", name="uq_batches_id"),
    )
    op.create_index("ix_batches_project_id_seq", "batches", ["project_id", "seq"])
    op.create_index("ix_batches_status_lease_until_s", "batches", ["status", "lease_until_s"])
    op.create_table(
        "batch_parts",
        sa.Column("key", sa.String(), server_default="", nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), server_default="", nullable=False),
        sa.Column("lines", sa.LargeBinary(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_batch_parts"),
    )
    op.create_index("ix_batch_parts_batch_id_number", "batch_parts", ["batch_id", "number"])
