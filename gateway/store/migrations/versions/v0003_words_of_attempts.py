"""Later attempts say what is charged of earlier ones, until their router does."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Note who has said what is charged of an attempt: so far, only routers have."""
    op.add_column(
        "settlements",
        sa.Column("attempt", sa.Integer(), server_default="2147483647", nullable=False),
    )
