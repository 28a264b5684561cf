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


def _order() -> Column[int]:
    """Number of a row in order of creation: lists are in this order."""
    # SQLite numbers rows by itself only if the column is an INTEGER.
    return Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


def _id() -> Column[str]:
    return Column("id", String, nullable=False, unique=True)


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
    Index(None, "dispatch_id"),
    Index(None, "ended_us"),
    Index(None, "project", "ended_us"),
)
"""One row for each record of an engine, or an estimate in its place."""


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
    _count("first"),
)
"""How far the ledger has the records of each engine, and from where on none is missing."""

settlements = Table(
    "settlements",
    metadata,
    _whole("dispatch_id", key=True),
    _flag("is_wasted"),
    _whole("completion_tokens", nullable=True),
    _whole("at_us"),
    Column("attempt", Integer, nullable=False, server_default="2147483647"),
    Index(None, "at_us"),
)
"""What routers have said of attempts, whether or not their rows have come; or what a later one says
of them, whose number is `attempt`."""

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
"""Counters, such as `directory`: it grows with every change of projects, keys and limits. And the
random id of the `database`."""

projects = Table(
    "projects",
    metadata,
    _order(),
    _id(),
    _text("name"),
    Column("weight", Float, nullable=False),
    _text("cache_scope"),
    Column("models", JSON),
    Column("routes", JSON),
    Column("tiers", JSON, nullable=False),
    Column("max_body_mb", Float),
    _whole("created_s"),
    _whole("archived_s", nullable=True),
)
"""Projects. Here and below, deleted rows stay, so that their ids remain places in a list."""
service_accounts = Table(
    "service_accounts",
    metadata,
    _order(),
    _id(),
    _project(),
    _text("name"),
    _text("role"),
    _whole("created_s"),
    _whole("deleted_s", nullable=True),
)
users = Table(
    "users",
    metadata,
    _order(),
    _id(),
    _text("email"),
    _text("role"),
    _whole("created_s"),
    _whole("deleted_s", nullable=True),
    Index(None, "email"),
)
project_users = Table(
    "project_users",
    metadata,
    _order(),
    _project(),
    Column("user_id", String, ForeignKey("users.id"), nullable=False, index=True),
    _text("role"),
    _whole("created_s"),
    _whole("deleted_s", nullable=True),
)
api_keys = Table(
    "api_keys",
    metadata,
    _order(),
    _id(),
    _project(),
    _text("owner_id"),
    _text("name"),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    _text("hint"),
    Column("models", JSON),
    _whole("created_s"),
    _whole("expires_s", nullable=True),
    _whole("last_used_s", nullable=True),
    _whole("deleted_s", nullable=True),
    Index(None, "owner_id"),
)
"""API keys: SHA-256 of the secret, and in `hint` as much of it as may be shown."""
admin_keys = Table(
    "admin_keys",
    metadata,
    _order(),
    _id(),
    _text("name"),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    _text("hint"),
    _text("owner_id"),
    _whole("created_s"),
    _whole("expires_s", nullable=True),
    _whole("last_used_s", nullable=True),
    _whole("deleted_s", nullable=True),
)
rate_limits = Table(
    "rate_limits",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    _text("model", key=True),
    _text("key_id", key=True),
    _whole("requests_per_minute", nullable=True),
    _whole("tokens_per_minute", nullable=True),
    _whole("concurrent_requests", nullable=True),
    _whole("batch_tokens_per_day", nullable=True),
)
"""Limits; an empty `key_id` means all keys, an empty `model` all models."""
spend_limits = Table(
    "spend_limits",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    _text("interval", key=True),
    _text("key_id", key=True),
    _whole("amount_nano"),
)
"""Hard limits; an empty `key_id` means all keys."""
spend_alerts = Table(
    "spend_alerts",
    metadata,
    _order(),
    _id(),
    _project(),
    _text("interval"),
    _whole("amount_nano"),
    Column("recipients", JSON, nullable=False),
    Column("subject_prefix", String),
    _whole("created_s"),
    _whole("deleted_s", nullable=True),
)
audit = Table(
    "audit",
    metadata,
    _order(),
    _id(),
    _whole("at_s"),
    _text("event"),
    _text("actor_id"),
    _text("address"),
    Column("project_id", String),
    _text("object_id"),
    Column("before", JSON),
    Column("after", JSON),
    Index(None, "at_s"),
    Index(None, "project_id"),
)
"""Who changed what; no secrets."""
