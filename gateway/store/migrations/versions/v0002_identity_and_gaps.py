"""The database has an id, and watermarks say from which record on nothing is missing."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID_BITS = 62


def upgrade() -> None:
    """Give the database an id, and watermarks a column."""
    op.add_column(
        "watermarks",
        sa.Column(
            "first", sa.BigInteger(), autoincrement=False, server_default="0", nullable=False
        ),
    )
    state = sa.table("state", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
    op.bulk_insert(state, [{"name": "database", "value": 1 + secrets.randbits(ID_BITS)}])
