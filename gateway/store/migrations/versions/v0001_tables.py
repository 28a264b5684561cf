"""First version of all tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:  # noqa: PLR0915 - it only lists
    """Make the tables."""
    op.create_table(
        "admin_keys",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), server_default="", nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hint", sa.String(), server_default="", nullable=False),
        sa.Column("owner_id", sa.String(), server_default="", nullable=False),
        sa.Column("created_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("expires_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("last_used_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("deleted_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_admin_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_admin_keys_hash")),
        sa.UniqueConstraint("id", name=op.f("uq_admin_keys_id")),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event", sa.String(), server_default="", nullable=False),
        sa.Column("actor_id", sa.String(), server_default="", nullable=False),
        sa.Column("address", sa.String(), server_default="", nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("object_id", sa.String(), server_default="", nullable=False),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        sa.UniqueConstraint("id", name=op.f("uq_audit_id")),
    )
    op.create_index(op.f("ix_audit_at_s"), "audit", ["at_s"], unique=False)
    op.create_index(op.f("ix_audit_project_id"), "audit", ["project_id"], unique=False)
    op.create_table(
        "idle_costs",
        sa.Column("at_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", sa.String(), server_default="", nullable=False),
        sa.Column("project", sa.String(), server_default="", nullable=False),
        sa.Column("device_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("at_s", "model", "project", name=op.f("pk_idle_costs")),
    )
    op.create_table(
        "prices",
        sa.Column("model", sa.String(), server_default="", nullable=False),
        sa.Column("from_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("input_nano", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("cached_input_nano", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("output_nano", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("gpu_hour_nano", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("currency", sa.String(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("model", "from_s", name=op.f("pk_prices")),
    )
    op.create_table(
        "projects",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), server_default="", nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("cache_scope", sa.String(), server_default="", nullable=False),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("routes", sa.JSON(), nullable=True),
        sa.Column("tiers", sa.JSON(), nullable=False),
        sa.Column("max_body_mb", sa.Float(), nullable=True),
        sa.Column("created_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("archived_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_projects")),
        sa.UniqueConstraint("id", name=op.f("uq_projects_id")),
    )
    op.create_table(
        "replicas",
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("model", sa.String(), server_default="", nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("engine", name=op.f("pk_replicas")),
    )
    op.create_index(op.f("ix_replicas_last_us"), "replicas", ["last_us"], unique=False)
    op.create_table(
        "settlements",
        sa.Column("dispatch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("is_wasted", sa.Boolean(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("at_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("dispatch_id", name=op.f("pk_settlements")),
    )
    op.create_index(op.f("ix_settlements_at_us"), "settlements", ["at_us"], unique=False)
    op.create_table(
        "state",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_state")),
    )
    op.create_table(
        "usage",
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("dispatch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("request_id", sa.String(), server_default="", nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("project", sa.String(), server_default="", nullable=False),
        sa.Column("key", sa.String(), server_default="", nullable=False),
        sa.Column("user", sa.String(), server_default="", nullable=False),
        sa.Column("tier", sa.String(), server_default="", nullable=False),
        sa.Column("model", sa.String(), server_default="", nullable=False),
        sa.Column("adapter", sa.String(), server_default="", nullable=False),
        sa.Column("endpoint", sa.String(), server_default="", nullable=False),
        sa.Column("is_copy", sa.Boolean(), nullable=False),
        sa.Column("is_continuation", sa.Boolean(), nullable=False),
        sa.Column("is_estimated", sa.Boolean(), nullable=False),
        sa.Column("is_aborted", sa.Boolean(), nullable=False),
        sa.Column("is_wasted", sa.Boolean(), nullable=False),
        sa.Column("arrived_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ended_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("charged_prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("charged_cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("charged_completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("queue_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("prefill_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("decode_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("device_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("price_from_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("device_cost_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wasted_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("engine", "epoch", "seq", name=op.f("pk_usage")),
    )
    op.create_index(op.f("ix_usage_dispatch_id"), "usage", ["dispatch_id"], unique=False)
    op.create_index(op.f("ix_usage_ended_us"), "usage", ["ended_us"], unique=False)
    op.create_index(
        op.f("ix_usage_project_ended_us"), "usage", ["project", "ended_us"], unique=False
    )
    op.create_table(
        "usage_days",
        sa.Column("at_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("project", sa.String(), server_default="", nullable=False),
        sa.Column("key", sa.String(), server_default="", nullable=False),
        sa.Column("user", sa.String(), server_default="", nullable=False),
        sa.Column("model", sa.String(), server_default="", nullable=False),
        sa.Column("adapter", sa.String(), server_default="", nullable=False),
        sa.Column("tier", sa.String(), server_default="", nullable=False),
        sa.Column("endpoint", sa.String(), server_default="", nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("estimated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wasted_prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wasted_completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("device_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("device_cost_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wasted_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint(
            "at_s",
            "project",
            "key",
            "user",
            "model",
            "adapter",
            "tier",
            "endpoint",
            name=op.f("pk_usage_days"),
        ),
    )
    op.create_table(
        "usage_hours",
        sa.Column("at_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("project", sa.String(), server_default="", nullable=False),
        sa.Column("key", sa.String(), server_default="", nullable=False),
        sa.Column("user", sa.String(), server_default="", nullable=False),
        sa.Column("model", sa.String(), server_default="", nullable=False),
        sa.Column("adapter", sa.String(), server_default="", nullable=False),
        sa.Column("tier", sa.String(), server_default="", nullable=False),
        sa.Column("endpoint", sa.String(), server_default="", nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("estimated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wasted_prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wasted_completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("device_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("device_cost_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wasted_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint(
            "at_s",
            "project",
            "key",
            "user",
            "model",
            "adapter",
            "tier",
            "endpoint",
            name=op.f("pk_usage_hours"),
        ),
    )
    op.create_table(
        "usage_minutes",
        sa.Column("at_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("project", sa.String(), server_default="", nullable=False),
        sa.Column("key", sa.String(), server_default="", nullable=False),
        sa.Column("user", sa.String(), server_default="", nullable=False),
        sa.Column("model", sa.String(), server_default="", nullable=False),
        sa.Column("adapter", sa.String(), server_default="", nullable=False),
        sa.Column("tier", sa.String(), server_default="", nullable=False),
        sa.Column("endpoint", sa.String(), server_default="", nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("estimated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wasted_prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wasted_completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("device_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("device_cost_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wasted_nano", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint(
            "at_s",
            "project",
            "key",
            "user",
            "model",
            "adapter",
            "tier",
            "endpoint",
            name=op.f("pk_usage_minutes"),
        ),
    )
    op.create_table(
        "users",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("email", sa.String(), server_default="", nullable=False),
        sa.Column("role", sa.String(), server_default="", nullable=False),
        sa.Column("created_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("deleted_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_users")),
        sa.UniqueConstraint("id", name=op.f("uq_users_id")),
    )
    op.create_index(op.f("ix_users_email"), "users", ["email"], unique=False)
    op.create_table(
        "watermarks",
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("engine", name=op.f("pk_watermarks")),
    )
    op.create_table(
        "api_keys",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("owner_id", sa.String(), server_default="", nullable=False),
        sa.Column("name", sa.String(), server_default="", nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hint", sa.String(), server_default="", nullable=False),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("created_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("expires_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("last_used_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("deleted_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_api_keys_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_keys_hash")),
        sa.UniqueConstraint("id", name=op.f("uq_api_keys_id")),
    )
    op.create_index(op.f("ix_api_keys_owner_id"), "api_keys", ["owner_id"], unique=False)
    op.create_index(op.f("ix_api_keys_project_id"), "api_keys", ["project_id"], unique=False)
    op.create_table(
        "project_users",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("role", sa.String(), server_default="", nullable=False),
        sa.Column("created_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("deleted_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_project_users_project_id_projects")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_project_users_user_id_users")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_project_users")),
    )
    op.create_index(
        op.f("ix_project_users_project_id"), "project_users", ["project_id"], unique=False
    )
    op.create_index(op.f("ix_project_users_user_id"), "project_users", ["user_id"], unique=False)
    op.create_table(
        "rate_limits",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), server_default="", nullable=False),
        sa.Column("key_id", sa.String(), server_default="", nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("concurrent_requests", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("batch_tokens_per_day", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_rate_limits_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("project_id", "model", "key_id", name=op.f("pk_rate_limits")),
    )
    op.create_table(
        "service_accounts",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), server_default="", nullable=False),
        sa.Column("role", sa.String(), server_default="", nullable=False),
        sa.Column("created_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("deleted_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_service_accounts_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_service_accounts")),
        sa.UniqueConstraint("id", name=op.f("uq_service_accounts_id")),
    )
    op.create_index(
        op.f("ix_service_accounts_project_id"), "service_accounts", ["project_id"], unique=False
    )
    op.create_table(
        "spend_alerts",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("interval", sa.String(), server_default="", nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recipients", sa.JSON(), nullable=False),
        sa.Column("subject_prefix", sa.String(), nullable=True),
        sa.Column("created_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("deleted_s", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_spend_alerts_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_spend_alerts")),
        sa.UniqueConstraint("id", name=op.f("uq_spend_alerts_id")),
    )
    op.create_index(
        op.f("ix_spend_alerts_project_id"), "spend_alerts", ["project_id"], unique=False
    )
    op.create_table(
        "spend_limits",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("interval", sa.String(), server_default="", nullable=False),
        sa.Column("key_id", sa.String(), server_default="", nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_spend_limits_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("project_id", "interval", "key_id", name=op.f("pk_spend_limits")),
    )
