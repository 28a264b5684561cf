"""Projects and API keys, as routers know them.

A project pays, and is the unit of limits, fairness, privacy and money. An API key belongs to one
project. All of this is plain data: it comes from a file or from the database, and a router looks it
up in a `Directory`.
"""

from typing import Literal

import msgspec

SHARED_BY_ALL = "all"
"""Scope of caches that no project keeps to itself."""
OWN_PROJECT = "project"
OWN_KEY = "key"
GROUP = "group:"
"""Prefix of the scopes that several projects share."""

Tier = Literal["flex", "default", "priority"]
"""Priority class of a request: OpenAI's `service_tier`. `flex` is batch priority."""


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one project, for one model or for all models together; None: no limit."""

    model: str | None = None
    """Name of the model or adapter; None: all models together."""
    key: str | None = None
    """Id of the one API key that it is for; None: all keys of the project together."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    batch_tokens_per_day: int | None = None
    """Tokens a day of requests of the tier `flex`."""


class SpendLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Most that a project, or one of its keys, may spend in a period of UTC's calendar."""

    amount_nano: int
    """Billionths of the currency's unit."""
    interval: Literal["day", "month"] = "month"
    is_hard: bool = True
    """Requests beyond it are refused; otherwise it only alerts."""
    key: str | None = None
    """Id of the one API key that it is for."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A project: who pays, and what it may do."""

    id: str
    """Empty for clients of a gateway without authentication."""
    name: str = ""
    weight: float = 1.0
    """Share of a busy model's time, relative to other projects."""
    cache_scope: str = OWN_PROJECT
    """Who shares cached prefixes: `project`, `key`, `group:NAME` or `all`."""
    models: tuple[str, ...] | None = None
    """Models and adapters that it may use; None: all."""
    routes: tuple[str, ...] | None = None
    """Paths that it may use; None: those that are open by default."""
    tiers: tuple[Tier, ...] = ("flex", "default")
    """Priority classes that its requests may ask for."""
    max_body_mb: float | None = None
    """Maximum size of its requests' bodies, in megabytes (2**20 bytes); None: the gateway's."""
    rate_limits: tuple[RateLimit, ...] = ()
    spend_limits: tuple[SpendLimit, ...] = ()


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key: only the hash of its secret is known."""

    id: str
    project: str
    """Id of its project."""
    hash: bytes
    """SHA-256 of the secret, 32 bytes."""
    owner: str = ""
    """Id of the service account or user that it belongs to."""
    name: str = ""
    models: tuple[str, ...] | None = None
    """Models and adapters that it may use, of those that its project may; None: all of them."""
    expires_s: float | None = None
    """When it expires, in Unix time."""


class AdminKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key for the administration of projects, which answers no inference request."""

    id: str
    hash: bytes
    """SHA-256 of the secret, 32 bytes."""
    name: str = ""
    expires_s: float | None = None
    """When it expires, in Unix time."""


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """All projects and keys of one source: a file, or the database. Archived ones are not in it."""

    projects: tuple[Project, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    admin_keys: tuple[AdminKey, ...] = ()
