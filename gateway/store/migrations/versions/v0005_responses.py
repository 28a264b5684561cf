"""Responses, conversations and stored chats."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _order() -> sa.Column[int]:
    return sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), server_default="", nullable=False)


def _whole(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "response_items",
        *(_order(), _text("project_id"), _text("id"), _bytes("data")),
        sa.PrimaryKeyConstraint("seq", name="pk_response_items"),
        sa.UniqueConstraint("project_id", "id", name="uq_response_items_project_id_id"),
    )
    op.create_table(
        "response_item_places",
        *(_order(), _text("project_id"), _text("owner_id"), _text("part"), _text("item_id")),
        sa.PrimaryKeyConstraint("seq", name="pk_response_item_places"),
    )
    _index("response_item_places", "project_id", "owner_id")
    _index("response_item_places", "project_id", "item_id")
    op.create_table(
        "responses",
        *(_order(), _text("project_id"), _text("id"), _text("previous_id")),
        *(_text("conversation_id"), _whole("conversation_seq"), _text("root_id"), _text("status")),
        sa.Column("is_background", sa.Boolean(), nullable=False),
        sa.Column("is_deleted", sa.Boolean(), nullable=False),
        *(_bytes("body"), _whole("created_s"), _whole("expires_s"), _whole("lease_s")),
        sa.PrimaryKeyConstraint("seq", name="pk_responses"),
        sa.UniqueConstraint("project_id", "id", name="uq_responses_project_id_id"),
    )
    _index("responses", "project_id", "previous_id")
    _index("responses", "root_id")
    _index("responses", "status")
    _index("responses", "expires_s")
    op.create_table(
        "response_events",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("response_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        _bytes("data"),
        sa.PrimaryKeyConstraint("project_id", "response_id", "number", name="pk_response_events"),
    )
    op.create_table(
        "conversations",
        *(_order(), _text("project_id"), _text("id")),
        sa.Column("labels", sa.JSON(), nullable=False),
        _whole("created_s"),
        sa.PrimaryKeyConstraint("seq", name="pk_conversations"),
        sa.UniqueConstraint("project_id", "id", name="uq_conversations_project_id_id"),
    )
    op.create_table(
        "stored_chats",
        *(_order(), _text("project_id"), _text("id"), _text("model")),
        sa.Column("labels", sa.JSON(), nullable=False),
        *(_bytes("body"), _bytes("messages"), _whole("created_s"), _whole("expires_s")),
        sa.PrimaryKeyConstraint("seq", name="pk_stored_chats"),
        sa.UniqueConstraint("project_id", "id", name="uq_stored_chats_project_id_id"),
    )
    _index("stored_chats", "expires_s")


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)
