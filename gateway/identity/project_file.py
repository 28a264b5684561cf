"""Turns projects files into a directory of projects and keys."""

import hashlib
from collections.abc import Iterable

from gateway.config.accounts import NANO
from gateway.config.projects import (
    AdminKeyEntry,
    KeyEntry,
    ProjectEntry,
    Projects,
    RateLimitEntry,
    SpendLimitEntry,
    parse_time,
)
from gateway.identity.api_key import parse_hash
from gateway.identity.project import (
    AdminKey,
    ApiKey,
    Directory,
    Project,
    RateLimit,
    SpendLimit,
)

ID_CHARS = 16


def directory_of(files: Iterable[Projects]) -> Directory:
    """The projects and keys of files that have no duplicates."""
    entries = [entry for file in files for entry in file.projects]
    return Directory(
        projects=tuple(map(_project, entries)),
        keys=tuple(_key(key, project_id(entry)) for entry in entries for key in entry.keys),
        admin_keys=tuple(_admin_key(admin) for file in files for admin in file.admin_keys),
    )


def project_id(entry: ProjectEntry) -> str:
    """Id of a project: its own, or one that is always the same for its name."""
    return entry.id or f"proj_{_digest(entry.name.encode())}"


def key_id(entry: KeyEntry | AdminKeyEntry) -> str:
    """Id of a key: its own, or one that is always the same for its hash."""
    return entry.id or f"key_{_digest(parse_hash(entry.hash))}"


def _project(entry: ProjectEntry) -> Project:
    keys = {name: key_id(key) for key in entry.keys for name in (key.name, key.id) if name}
    return Project(
        id=project_id(entry),
        name=entry.name,
        weight=entry.weight,
        cache_scope=entry.cache_scope,
        models=None if entry.models is None else tuple(entry.models),
        routes=None if entry.routes is None else tuple(entry.routes),
        tiers=tuple(entry.tiers),
        max_body_mb=entry.max_body_mb,
        rate_limits=tuple(_rate_limit(each, keys) for each in entry.rate_limits),
        spend_limits=tuple(_spend_limit(each, keys) for each in entry.spend_limits),
    )


def _key(entry: KeyEntry, project: str) -> ApiKey:
    return ApiKey(
        id=key_id(entry),
        project=project,
        hash=parse_hash(entry.hash),
        name=entry.name or "",
        models=None if entry.models is None else tuple(entry.models),
        expires_s=None if entry.expires is None else parse_time(entry.expires),
    )


def _admin_key(entry: AdminKeyEntry) -> AdminKey:
    return AdminKey(
        id=key_id(entry),
        hash=parse_hash(entry.hash),
        name=entry.name or "",
        expires_s=None if entry.expires is None else parse_time(entry.expires),
    )


def _rate_limit(entry: RateLimitEntry, keys: dict[str, str]) -> RateLimit:
    return RateLimit(
        model=entry.model,
        key=None if entry.key is None else keys[entry.key],
        requests_per_minute=entry.requests_per_minute,
        tokens_per_minute=entry.tokens_per_minute,
        concurrent_requests=entry.concurrent_requests,
        batch_tokens_per_day=entry.batch_tokens_per_day,
    )


def _spend_limit(entry: SpendLimitEntry, keys: dict[str, str]) -> SpendLimit:
    return SpendLimit(
        amount_nano=round(entry.amount * NANO),
        interval=entry.interval,
        is_hard=entry.is_hard,
        key=None if entry.key is None else keys[entry.key],
    )


def _digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()[:ID_CHARS]
