"""The directory that routers look projects and keys up in, read from the database."""

from collections import defaultdict

import sqlalchemy as sa

from gateway.identity.project import (
    AdminKey,
    ApiKey,
    Directory,
    Project,
    RateLimit,
    SpendLimit,
)
from gateway.store import tables
from gateway.store.projects import ProjectRow
from gateway.store.rows import row_of


def directory(connection: sa.Connection) -> Directory:
    """All active projects and their keys, and the admin keys; without what has been deleted."""
    active = sa.select(tables.projects).where(tables.projects.c.archived_s.is_(None))
    rate_limits, spend_limits = _rate_limits(connection), _spend_limits(connection)
    projects = tuple(
        Project(
            id=row.id,
            name=row.name,
            weight=row.weight,
            cache_scope=row.cache_scope,
            models=row.models,
            routes=row.routes,
            tiers=row.tiers,
            max_body_mb=row.max_body_mb,
            rate_limits=tuple(rate_limits[row.id]),
            spend_limits=tuple(spend_limits[row.id]),
        )
        for row in (
            row_of(each, ProjectRow)
            for each in connection.execute(active.order_by(tables.projects.c.seq))
        )
    )
    return Directory(projects=projects, keys=_keys(connection), admin_keys=_admin_keys(connection))


def _keys(connection: sa.Connection) -> tuple[ApiKey, ...]:
    table = tables.api_keys
    query = (
        sa.select(table)
        .join(tables.projects, tables.projects.c.id == table.c.project_id)
        .where(table.c.deleted_s.is_(None), tables.projects.c.archived_s.is_(None))
        .order_by(table.c.seq)
    )
    return tuple(
        ApiKey(
            id=row.id,
            project=row.project_id,
            hash=row.hash,
            owner=row.owner_id,
            name=row.name,
            models=None if row.models is None else tuple(row.models),
            expires_s=row.expires_s,
        )
        for row in connection.execute(query)
    )


def _admin_keys(connection: sa.Connection) -> tuple[AdminKey, ...]:
    table = tables.admin_keys
    query = sa.select(table).where(table.c.deleted_s.is_(None)).order_by(table.c.seq)
    return tuple(
        AdminKey(id=row.id, hash=row.hash, name=row.name, expires_s=row.expires_s)
        for row in connection.execute(query)
    )


def _rate_limits(connection: sa.Connection) -> dict[str, list[RateLimit]]:
    found: dict[str, list[RateLimit]] = defaultdict(list)
    table = tables.rate_limits
    for row in connection.execute(sa.select(table).order_by(table.c.model, table.c.key_id)):
        limit = RateLimit(
            model=row.model or None,
            key=row.key_id or None,
            requests_per_minute=row.requests_per_minute,
            tokens_per_minute=row.tokens_per_minute,
            concurrent_requests=row.concurrent_requests,
            batch_tokens_per_day=row.batch_tokens_per_day,
        )
        found[row.project_id].append(limit)
    return found


def _spend_limits(connection: sa.Connection) -> dict[str, list[SpendLimit]]:
    """Hard limits, and alerts as limits that refuse nothing."""
    found: dict[str, list[SpendLimit]] = defaultdict(list)
    limits, alerts = tables.spend_limits, tables.spend_alerts
    for row in connection.execute(sa.select(limits).order_by(limits.c.interval, limits.c.key_id)):
        limit = SpendLimit(
            amount_nano=row.amount_nano, interval=row.interval, key=row.key_id or None
        )
        found[row.project_id].append(limit)
    query = sa.select(alerts).where(alerts.c.deleted_s.is_(None)).order_by(alerts.c.seq)
    for row in connection.execute(query):
        alert = SpendLimit(amount_nano=row.amount_nano, interval=row.interval, is_hard=False)
        found[row.project_id].append(alert)
    return found
