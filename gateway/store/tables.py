"""Tables of the database. `migrations/` makes them; a test compares the two.

Times are Unix seconds, or microseconds where the column ends in `_us`; amounts of money are
nano-units. Text that is not given is empty, so that it can be part of a key.
"""

from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

from gateway.store.columns import count, flag, identifier, order, text, whole

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _project() -> Column[str]:
    return Column("project_id", String, ForeignKey("projects.id"), nullable=False, index=True)


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
    whole("epoch", key=True),
    whole("seq", key=True),
    whole("dispatch_id"),
    text("request_id"),
    Column("attempt", Integer, nullable=False),
    text("project"),
    text("key"),
    text("user"),
    text("tier"),
    text("model"),
    text("adapter"),
    text("endpoint"),
    flag("is_copy"),
    flag("is_continuation"),
    flag("is_estimated"),
    flag("is_aborted"),
    flag("is_wasted"),
    whole("arrived_us"),
    whole("ended_us"),
    count("prompt_tokens"),
    count("cached_tokens"),
    count("completion_tokens"),
    count("charged_prompt_tokens"),
    count("charged_cached_tokens"),
    count("charged_completion_tokens"),
    count("queue_us"),
    count("prefill_us"),
    count("decode_us"),
    count("device_us"),
    whole("price_from_s"),
    count("cost_nano"),
    count("device_cost_nano"),
    count("wasted_nano"),
    Index(None, "dispatch_id"),
    Index(None, "ended_us"),
    Index(None, "project", "ended_us"),
)
"""One row for each record of an engine, or an estimate in its place."""


def _sums(name: str) -> Table:
    return Table(
        name,
        metadata,
        whole("at_s", key=True),
        *(text(each, key=True) for each in DIMENSIONS),
        *(count(each) for each in SUMS),
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
    whole("epoch"),
    whole("seq"),
    whole("at_us"),
    count("first"),
)
"""How far the ledger has the records of each engine, and from where on none is missing."""

settlements = Table(
    "settlements",
    metadata,
    whole("dispatch_id", key=True),
    flag("is_wasted"),
    whole("completion_tokens", nullable=True),
    whole("at_us"),
    Column("attempt", Integer, nullable=False, server_default="2147483647"),
    Index(None, "at_us"),
)
"""What routers have said of attempts, whether or not their rows have come; or what a later one says
of them, whose number is `attempt`."""

prices = Table(
    "prices",
    metadata,
    text("model", key=True),
    whole("from_s", key=True),
    whole("input_nano", nullable=True),
    whole("cached_input_nano", nullable=True),
    whole("output_nano", nullable=True),
    whole("gpu_hour_nano", nullable=True),
    text("currency"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("engine", String, primary_key=True),
    text("model"),
    Column("devices", Integer, nullable=False),
    whole("first_us"),
    whole("last_us"),
    Index(None, "last_us"),
)
"""From when to when each replica has held its devices."""

idle_costs = Table(
    "idle_costs",
    metadata,
    whole("at_s", key=True),
    text("model", key=True),
    text("project", key=True),
    count("device_us"),
    count("cost_nano"),
)
"""Time of devices that were held and not used, by the hour, shared out to projects."""

state = Table(
    "state",
    metadata,
    Column("name", String, primary_key=True),
    whole("value"),
)
"""Counters, such as `directory`: it grows with every change of projects, keys and limits. And the
random id of the `database`."""

projects = Table(
    "projects",
    metadata,
    order(),
    identifier(),
    text("name"),
    Column("weight", Float, nullable=False),
    text("cache_scope"),
    Column("models", JSON),
    Column("routes", JSON),
    Column("tiers", JSON, nullable=False),
    Column("max_body_mb", Float),
    whole("created_s"),
    whole("archived_s", nullable=True),
)
"""Projects. Here and below, deleted rows stay, so that their ids remain places in a list."""
service_accounts = Table(
    "service_accounts",
    metadata,
    order(),
    identifier(),
    _project(),
    text("name"),
    text("role"),
    whole("created_s"),
    whole("deleted_s", nullable=True),
)
users = Table(
    "users",
    metadata,
    order(),
    identifier(),
    text("email"),
    text("role"),
    whole("created_s"),
    whole("deleted_s", nullable=True),
    Index(None, "email"),
)
project_users = Table(
    "project_users",
    metadata,
    order(),
    _project(),
    Column("user_id", String, ForeignKey("users.id"), nullable=False, index=True),
    text("role"),
    whole("created_s"),
    whole("deleted_s", nullable=True),
)
api_keys = Table(
    "api_keys",
    metadata,
    order(),
    identifier(),
    _project(),
    text("owner_id"),
    text("name"),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    text("hint"),
    Column("models", JSON),
    whole("created_s"),
    whole("expires_s", nullable=True),
    whole("last_used_s", nullable=True),
    whole("deleted_s", nullable=True),
    Index(None, "owner_id"),
)
"""API keys: SHA-256 of the secret, and in `hint` as much of it as may be shown."""
admin_keys = Table(
    "admin_keys",
    metadata,
    order(),
    identifier(),
    text("name"),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    text("hint"),
    text("owner_id"),
    whole("created_s"),
    whole("expires_s", nullable=True),
    whole("last_used_s", nullable=True),
    whole("deleted_s", nullable=True),
)
rate_limits = Table(
    "rate_limits",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    text("model", key=True),
    text("key_id", key=True),
    whole("requests_per_minute", nullable=True),
    whole("tokens_per_minute", nullable=True),
    whole("concurrent_requests", nullable=True),
    whole("batch_tokens_per_day", nullable=True),
)
"""Limits; an empty `key_id` means all keys, an empty `model` all models."""
spend_limits = Table(
    "spend_limits",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    text("interval", key=True),
    text("key_id", key=True),
    whole("amount_nano"),
)
"""Hard limits; an empty `key_id` means all keys."""
spend_alerts = Table(
    "spend_alerts",
    metadata,
    order(),
    identifier(),
    _project(),
    text("interval"),
    whole("amount_nano"),
    Column("recipients", JSON, nullable=False),
    Column("subject_prefix", String),
    whole("created_s"),
    whole("deleted_s", nullable=True),
)
audit = Table(
    "audit",
    metadata,
    order(),
    identifier(),
    whole("at_s"),
    text("event"),
    text("actor_id"),
    text("address"),
    Column("project_id", String),
    text("object_id"),
    Column("before", JSON),
    Column("after", JSON),
    Index(None, "at_s"),
    Index(None, "project_id"),
)
"""Who changed what; no secrets."""
