"""Projects file: projects, the hashes of their API keys, and what each may do."""

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.config.project_values import BodyMb, CacheScope, Route, Tiers, Weight
from gateway.config.project_values import Text as Name
from gateway.config.serving_options import ModelName
from gateway.config.strict import ConfigPath, FieldError, Strict, field_error, field_errors

HASH_PREFIX = "sha256:"
_HASH = re.compile(rf"{HASH_PREFIX}[0-9a-f]{{64}}")
_HASH_OF_NOTHING = HASH_PREFIX + hashlib.sha256().hexdigest()
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


def _checked_hash(value: object) -> object:
    """Refuse keys in plain text in words of their own, which do not repeat them."""
    if not (isinstance(value, str) and _HASH.fullmatch(value)):
        raise ValueError(
            "must be the key's hash, `sha256:` and 64 hexadecimal digits in lower case, and never"
            " the key itself; `gateway keys new` prints both"
        )
    if value == _HASH_OF_NOTHING:
        raise ValueError("is the hash of an empty key")
    return value


def _checked_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError("must be up to 128 letters, digits and any of `._:@-`")
    return value


def _checked_key_id(value: str) -> str:
    if ":" in value:
        raise ValueError("must have no `:`, as the keys have that tokens count as")
    return _checked_id(value)


def _text_of_time(value: object) -> object:
    """The text of what YAML has made a date or a time of."""
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    return value


def _checked_time(value: str) -> str:
    parse_time(value)
    return value


Hash = Annotated[str, BeforeValidator(_checked_hash)]
Id = Annotated[str, AfterValidator(_checked_id)]
KeyId = Annotated[str, AfterValidator(_checked_key_id)]
Time = Annotated[str, BeforeValidator(_text_of_time), AfterValidator(_checked_time)]


class KeyEntry(Strict):
    """An API key of a project."""

    hash: Hash
    """SHA-256 of the key: `sha256:` and 64 hexadecimal digits, as `gateway keys new` prints it."""
    name: Name | None = None
    """Name for people; unique within the project."""
    id: KeyId | None = None
    """Id in limits, usage and logs. Default: made from the hash."""
    models: list[ModelName] | None = None
    """Models and adapters that it may use, of those that its project may. Default: all of them."""
    expires: Time | None = None
    """Date or time from which on it is not valid; UTC, unless the time has an offset."""


class RateLimitEntry(Strict):
    """Limits of a project."""

    model: ModelName | None = None
    """Model or adapter that it is for. Default: all models together."""
    key: Name | None = None
    """Name or id of the project's key that it is for. Default: all keys together."""
    requests_per_minute: int | None = Field(default=None, ge=0)
    """Requests that may begin in a minute."""
    tokens_per_minute: int | None = Field(default=None, ge=0)
    """Tokens that may be computed in a minute."""
    concurrent_requests: int | None = Field(default=None, ge=0)
    """Requests that may run at the same time."""
    batch_tokens_per_day: int | None = Field(default=None, ge=0)
    """Tokens a day of requests of the tier `flex`."""


class SpendLimitEntry(Strict):
    """Most that a project may spend."""

    amount: float = Field(ge=0, le=1e9)
    """Amount, in units of the currency of the prices."""
    interval: Literal["day", "month"] = "month"
    """Period, by UTC's calendar."""
    is_hard: bool = True
    """Requests beyond it are refused; otherwise it only alerts."""
    key: Name | None = None
    """Name or id of the project's key that it is for. Default: all keys together."""


class ProjectEntry(Strict):
    """A project: who pays, and what it may do."""

    name: Name
    """Name of the project."""
    id: Id | None = None
    """Id in limits, usage and logs. Default: made from the name."""
    keys: list[KeyEntry] = Field(default_factory=list)
    """Its API keys. Two at a time let clients change from one to the other."""
    weight: Weight = 1.0
    """Share of a busy model's time, relative to other projects."""
    cache_scope: CacheScope = "project"
    """Who shares cached prefixes: the `project`, each `key` alone, a `group:NAME` of projects, or
    `all`."""
    models: list[ModelName] | None = None
    """Models, adapters, aliases and splits that it may use; an alias or a split stands for all that
    it leads to. Default: all."""
    routes: list[Route] | None = None
    """Paths that it may use. Default: the `routes` of the gateway's `auth`."""
    tiers: Tiers = Field(default=["flex", "default"])
    """Values of `service_tier` that its requests may ask for."""
    max_body_mb: BodyMb | None = None
    """Maximum size of its requests' bodies, in megabytes (2**20 bytes). Default: the gateway's."""
    rate_limits: list[RateLimitEntry] = Field(default_factory=list)
    """Limits of requests and tokens."""
    spend_limits: list[SpendLimitEntry] = Field(default_factory=list)
    """Limits of what it may spend."""

    @model_validator(mode="after")
    def _has_such_keys(self) -> Self:
        names = {name for key in self.keys for name in (key.name, key.id) if name}
        for kind in ("rate_limits", "spend_limits"):
            for i, limit in enumerate(getattr(self, kind)):
                if limit.key is not None and limit.key not in names:
                    raise field_error("the project has no such key", kind, i, "key")
        return self


class AdminKeyEntry(Strict):
    """A key for the administration of the gateway, which answers no inference request."""

    hash: Hash
    """SHA-256 of the key, as for an API key."""
    name: Name | None = None
    """Name for people."""
    id: Id | None = None
    """Id in the audit log. Default: made from the hash."""
    expires: Time | None = None
    """Date or time from which on it is not valid."""


class Projects(Strict):
    """Content of a projects file."""

    projects: list[ProjectEntry] = Field(default_factory=list)
    """All projects."""
    admin_keys: list[AdminKeyEntry] = Field(default_factory=list)
    """Keys for administrators."""

    @model_validator(mode="after")
    def _has_no_duplicates(self) -> Self:
        if errors := list(duplicates([self])):
            raise field_errors([FieldError(path[1:], message) for path, message in errors])
        return self


def parse_time(text: str) -> float:
    """Unix time of a date, or of a time with or without an offset.

    Raises:
        ValueError: it is neither.
    """
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a date or a time such as 2027-01-31T12:00:00Z") from None
    return (time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp()


def duplicates(files: Iterable[Projects]) -> Iterator[FieldError]:
    """Names, ids and hashes that occur twice; the first step of each path is the file's number."""
    first: dict[tuple[str, object], ConfigPath] = {}
    for kind, value, path in _identifiers(files):
        if value is not None and first.setdefault((kind, value), path) != path:
            yield FieldError(path, f"this {kind.partition('|')[0]} appears twice")


def _identifiers(files: Iterable[Projects]) -> Iterator[tuple[str, object, ConfigPath]]:
    """Everything that must be unique: its kind, its value and its path."""
    for number, file in enumerate(files):
        for i, project in enumerate(file.projects):
            at = (number, "projects", i)
            yield "name", project.name, (*at, "name")
            yield "id", project.id, (*at, "id")
            for j, key in enumerate(project.keys):
                yield f"name|{at}", key.name, (*at, "keys", j, "name")
                yield "id|key", key.id, (*at, "keys", j, "id")
                yield "hash", key.hash, (*at, "keys", j, "hash")
        for i, admin in enumerate(file.admin_keys):
            yield "id|key", admin.id, (number, "admin_keys", i, "id")
            yield "hash", admin.hash, (number, "admin_keys", i, "hash")
