"""Tables of the database. `migrations/` makes them; a test compares the two.

Times are Unix seconds, or microseconds where the column ends in `_us`; amounts of money are
nano-units. Text that is not given is empty, so that it can be part of a key.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, String, primary_key=key, nullable=False, server_default="")


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _whole(name: str, *, key: bool = False, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=nullable, autoincrement=False)


SUMS = (
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "attempts",
    "estimated",
    "wasted_prompt_tokens",
    "wasted_completion_tokens",
    "device_us",
    "cost_nano",
    "device_cost_nano",
    "wasted_nano",
)
"""Columns of sums. The tokens, `cost_nano` and `requests` are what clients are charged for; what
was `wasted` was computed besides. `device_us` and `device_cost_nano` are all device time."""
DIMENSIONS = ("project", "key", "user", "model", "adapter", "tier", "endpoint")
"""Columns that sums are grouped by, after their `at_s`."""

usage = Table(
    "usage",
    metadata,
    Column("engine", String, primary_key=True),
    _whole("epoch", key=True),
    _whole("seq", key=True),
    _whole("dispatch_id"),
    _text("request_id"),
    Column("attempt", Integer, nullable=False),
    _text("project"),
    _text("key"),
    _text("user"),
    _text("tier"),
    _text("model"),
    _text("adapter"),
    _text("endpoint"),
    _flag("is_copy"),
    _flag("is_continuation"),
    _flag("is_estimated"),
    _flag("is_aborted"),
    _flag("is_wasted"),
    _whole("arrived_us"),
    _whole("ended_us"),
    _count("prompt_tokens"),
    _count("cached_tokens"),
    _count("completion_tokens"),
    _count("charged_prompt_tokens"),
    _count("charged_cached_tokens"),
    _count("charged_completion_tokens"),
    _count("queue_us"),
    _count("prefill_us"),
    _count("decode_us"),
    _count("device_us"),
    _whole("price_from_s"),
    _count("cost_nano"),
    _count("device_cost_nano"),
    _count("wasted_nano"),
    UniqueConstraint("dispatch_id"),
    Index(None, "ended_us"),
    Index(None, "project", "ended_us"),
)
"""One row for each attempt: what the engine did, and what of it is charged."""


def _sums(name: str) -> Table:
    return Table(
        name,
        metadata,
        _whole("at_s", key=True),
        *(_text(each, key=True) for each in DIMENSIONS),
        *(_count(each) for each in SUMS),
    )


usage_minutes = _sums("usage_minutes")
usage_hours = _sums("usage_hours")
usage_days = _sums("usage_days")
ROLL_UPS = {60: usage_minutes, 3_600: usage_hours, 86_400: usage_days}
"""Sums of `usage` by the seconds of their periods, which begin at multiples of that."""

watermarks = Table(
    "watermarks",
    metadata,
    Column("engine", String, primary_key=True),
    _whole("epoch"),
    _whole("seq"),
    _whole("at_us"),
)
"""How far the ledger has the records of each engine."""

settlements = Table(
    "settlements",
    metadata,
    _whole("dispatch_id", key=True),
    _flag("is_wasted"),
    _whole("completion_tokens", nullable=True),
    _whole("at_us"),
    Index(None, "at_us"),
)
"""What routers have said of attempts, whether or not their rows have come."""

prices = Table(
    "prices",
    metadata,
    _text("model", key=True),
    _whole("from_s", key=True),
    _whole("input_nano", nullable=True),
    _whole("cached_input_nano", nullable=True),
    _whole("output_nano", nullable=True),
    _whole("gpu_hour_nano", nullable=True),
    _text("currency"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("engine", String, primary_key=True),
    _text("model"),
    Column("devices", Integer, nullable=False),
    _whole("first_us"),
    _whole("last_us"),
    Index(None, "last_us"),
)
"""From when to when each replica has held its devices."""

idle_costs = Table(
    "idle_costs",
    metadata,
    _whole("at_s", key=True),
    _text("model", key=True),
    _text("project", key=True),
    _count("device_us"),
    _count("cost_nano"),
)
"""Time of devices that were held and not used, by the hour, shared out to projects."""

state = Table(
    "state",
    metadata,
    Column("name", String, primary_key=True),
    _whole("value"),
)
"""Counters, such as `directory`: it grows with every change of projects, keys and limits."""

projects = Table(
    "projects",
    metadata,
    Column("id", String, primary_key=True),
    _text("name"),
    Column("status", String, nullable=False, server_default="active"),
    Column("weight", Float, nullable=False, server_default="1"),
    Column("cache_scope", String, nullable=False, server_default="project"),
    Column("models", JSON),
    Column("routes", JSON),
    Column("tiers", JSON),
    Column("max_body_mb", Float),
    _whole("created_s"),
    _whole("archived_s", nullable=True),
)
service_accounts = Table(
    "service_accounts",
    metadata,
    Column("id", String, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False, index=True),
    _text("name"),
    Column("role", String, nullable=False, server_default="member"),
    _whole("created_s"),
    _whole("deleted_s", nullable=True),
)
users = Table(
    "users",
    metadata,
    Column("id", String, primary_key=True),
    _text("issuer"),
    _text("subject"),
    _text("email"),
    _text("name"),
    Column("role", String, nullable=False, server_default="reader"),
    _whole("created_s"),
    UniqueConstraint("issuer", "subject"),
)
project_users = Table(
    "project_users",
    metadata,
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("role", String, nullable=False, server_default="member"),
    _whole("created_s"),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False, index=True),
    _text("owner_kind"),
    _text("owner_id"),
    _text("name"),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    _text("hint"),
    Column("models", JSON),
    _whole("created_s"),
    _whole("expires_s", nullable=True),
    _whole("last_used_s", nullable=True),
    _whole("revoked_s", nullable=True),
)
"""API keys: SHA-256 of the secret, and in `hint` as much of it as may be shown."""
admin_keys = Table(
    "admin_keys",
    metadata,
    Column("id", String, primary_key=True),
    _text("name"),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    _text("hint"),
    _text("owner_id"),
    _whole("created_s"),
    _whole("expires_s", nullable=True),
    _whole("last_used_s", nullable=True),
    _whole("revoked_s", nullable=True),
)
rate_limits = Table(
    "rate_limits",
    metadata,
    Column("id", String, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    _text("key_id"),
    _text("model"),
    _whole("requests_per_minute", nullable=True),
    _whole("tokens_per_minute", nullable=True),
    _whole("concurrent_requests", nullable=True),
    _whole("batch_tokens_per_day", nullable=True),
    UniqueConstraint("project_id", "key_id", "model"),
)
"""Limits; an empty `key_id` means all keys, an empty `model` all models."""
spend_limits = Table(
    "spend_limits",
    metadata,
    Column("id", String, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    _text("key_id"),
    Column("interval", String, nullable=False, server_default="month"),
    _whole("amount_nano"),
    _flag("is_hard"),
    UniqueConstraint("project_id", "key_id", "interval"),
)
alerts = Table(
    "alerts",
    metadata,
    Column("id", String, primary_key=True),
    _text("project_id"),
    Column("interval", String, nullable=False, server_default="month"),
    _whole("threshold_nano"),
    Column("channel", JSON),
    _whole("created_s"),
    _whole("fired_s", nullable=True),
    Index(None, "project_id"),
)
"""Spend alerts; an empty `project_id` means the whole organization. `fired_s`: when last."""
audit = Table(
    "audit",
    metadata,
    Column("id", String, primary_key=True),
    _whole("at_us"),
    _text("action"),
    _text("actor_kind"),
    _text("actor_id"),
    _text("address"),
    _text("project_id"),
    _text("object_id"),
    Column("before", JSON),
    Column("after", JSON),
    Index(None, "at_us"),
    Index(None, "project_id", "at_us"),
)
"""Who changed what; no secrets."""
