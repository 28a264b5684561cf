"""Tables of projects, keys, limits and the audit log.

Times are Unix seconds, money is in billionths of the currency's unit. `seq` is the order of
creation. Deleted rows stay, so that their ids remain places in a list; nothing else finds them.
"""

import sqlalchemy as sa

from gateway.store.metadata import metadata

SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite numbers rows by itself only if the column is an INTEGER."""
ALL = ""
"""Model or key of a limit that is for all of them; NULL would never be equal to itself."""

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("seq", SEQ, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("weight", sa.Float, nullable=False),
    sa.Column("cache_scope", sa.String, nullable=False),
    sa.Column("models", sa.JSON(none_as_null=True)),
    sa.Column("routes", sa.JSON(none_as_null=True)),
    sa.Column("tiers", sa.JSON, nullable=False),
    sa.Column("max_body_mb", sa.Float),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("archived_at", sa.BigInteger),
)
service_accounts = sa.Table(
    "service_accounts",
    metadata,
    sa.Column("seq", SEQ, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), nullable=False, index=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", sa.BigInteger),
)
users = sa.Table(
    "users",
    metadata,
    sa.Column("seq", SEQ, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("email", sa.String, nullable=False, index=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("added_at", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", sa.BigInteger),
)
project_users = sa.Table(
    "project_users",
    metadata,
    sa.Column("seq", SEQ, primary_key=True, autoincrement=True),
    sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), nullable=False, index=True),
    sa.Column("user_id", sa.String, sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("added_at", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", sa.BigInteger),
)
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("seq", SEQ, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), nullable=False, index=True),
    sa.Column("owner_id", sa.String, nullable=False, index=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("redacted_value", sa.String, nullable=False),
    sa.Column("models", sa.JSON(none_as_null=True)),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("last_used_at", sa.BigInteger),
    sa.Column("deleted_at", sa.BigInteger),
)
admin_keys = sa.Table(
    "admin_keys",
    metadata,
    sa.Column("seq", SEQ, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("redacted_value", sa.String, nullable=False),
    sa.Column("owner_id", sa.String, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("last_used_at", sa.BigInteger),
    sa.Column("deleted_at", sa.BigInteger),
)
rate_limits = sa.Table(
    "rate_limits",
    metadata,
    sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("model", sa.String, primary_key=True),
    sa.Column("key_id", sa.String, primary_key=True),
    sa.Column("requests_per_minute", sa.BigInteger),
    sa.Column("tokens_per_minute", sa.BigInteger),
    sa.Column("concurrent_requests", sa.BigInteger),
    sa.Column("batch_tokens_per_day", sa.BigInteger),
)
spend_limits = sa.Table(
    "spend_limits",
    metadata,
    sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("interval", sa.String, primary_key=True),
    sa.Column("key_id", sa.String, primary_key=True),
    sa.Column("amount_nano", sa.BigInteger, nullable=False),
)
spend_alerts = sa.Table(
    "spend_alerts",
    metadata,
    sa.Column("seq", SEQ, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), nullable=False, index=True),
    sa.Column("interval", sa.String, nullable=False),
    sa.Column("amount_nano", sa.BigInteger, nullable=False),
    sa.Column("recipients", sa.JSON, nullable=False),
    sa.Column("subject_prefix", sa.String),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", sa.BigInteger),
)
audit_logs = sa.Table(
    "audit_logs",
    metadata,
    sa.Column("seq", SEQ, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("effective_at", sa.BigInteger, nullable=False, index=True),
    sa.Column("type", sa.String, nullable=False),
    sa.Column("actor_kind", sa.String, nullable=False),
    sa.Column("actor_id", sa.String, nullable=False),
    sa.Column("actor_email", sa.String, nullable=False),
    sa.Column("actor_address", sa.String, nullable=False),
    sa.Column("project_id", sa.String),
    sa.Column("resource_id", sa.String, nullable=False),
    sa.Column("before", sa.JSON(none_as_null=True)),
    sa.Column("after", sa.JSON(none_as_null=True)),
)
organization_version = sa.Table(
    "organization_version",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)
"""One row, the number of changes so far: routers fetch the directory if it has grown."""
