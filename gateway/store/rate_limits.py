"""Rate limits in the database: one row for each project, model and, perhaps, key."""

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from gateway.store.api_keys import api_key
from gateway.store.changes import Change
from gateway.store.projects import active_project, project
from gateway.store.rows import row_of
from gateway.store.tables import rate_limits

ALL = ""
"""Model or key of a limit that is for all of them; NULL would never be equal to itself."""


class RateLimitRow(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a project, for one model or all; None: no limit."""

    project_id: str
    model: str = ALL
    key_id: str = ALL
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    batch_tokens_per_day: int | None = None

    @property
    def has_limit(self) -> bool:
        """Whether anything is limited."""
        return self != RateLimitRow(
            project_id=self.project_id, model=self.model, key_id=self.key_id
        )


def list_rate_limits(connection: sa.Connection, project_id: str) -> Sequence[RateLimitRow]:
    """All limits of a project, by model and key; the first one is for all models and keys."""
    project(connection, project_id)
    query = sa.select(rate_limits).where(rate_limits.c.project_id == project_id)
    rows = [row_of(row, RateLimitRow) for row in connection.execute(query)]
    if not any(row.model == row.key_id == ALL for row in rows):
        rows.append(RateLimitRow(project_id=project_id))
    return sorted(rows, key=lambda row: (row.model, row.key_id))


def update_rate_limit(
    change: Change, place: RateLimitRow, values: Mapping[str, int | None]
) -> RateLimitRow:
    """Change the limits at `place`, of which only project, model and key count.

    Raises:
        NotFound: there is no such project, or the project has no such key.
    """
    project_id = place.project_id
    active_project(change.connection, project_id)
    if place.key_id != ALL:
        api_key(change.connection, project_id, place.key_id)
    query = sa.select(rate_limits).where(*_at(place))
    found = change.connection.execute(query).first()
    before = (
        RateLimitRow(project_id=project_id, model=place.model, key_id=place.key_id)
        if found is None
        else row_of(found, RateLimitRow)
    )
    after = msgspec.structs.replace(before, **values)
    if after != before:
        _write(change, before, after)
    return after


def _write(change: Change, before: RateLimitRow, after: RateLimitRow) -> None:
    # Not an update: there may be no row yet, and none is kept that limits nothing.
    change.connection.execute(rate_limits.delete().where(*_at(before)))
    if after.has_limit:
        change.connection.execute(rate_limits.insert().values(**msgspec.structs.asdict(after)))
    change.record(
        "rate_limit.updated" if after.has_limit else "rate_limit.deleted",
        rate_limit_id(after),
        project_id=after.project_id,
        before=msgspec.structs.asdict(before),
        after=msgspec.structs.asdict(after),
    )


def rate_limit_id(row: RateLimitRow) -> str:
    """Id of limits: `rl-` and the model, or `*` for all; then `@` and the key, if it is for one.

    Slashes are written `~1`, as in a JSON Pointer: proxies read them in different ways.
    """
    model = (row.model or "*").replace("~", "~0").replace("/", "~1")
    return f"rl-{model}" + (f"@{row.key_id}" if row.key_id else "")


def _at(row: RateLimitRow) -> tuple[sa.ColumnElement[bool], ...]:
    table = rate_limits.c
    return (
        table.project_id == row.project_id,
        table.model == row.model,
        table.key_id == row.key_id,
    )
