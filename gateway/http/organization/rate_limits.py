"""Rate limits of a project: `.../rate_limits`, for all models, for one, or for one key."""

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from gateway.config.project_values import Text
from gateway.errors.administration import NotFound
from gateway.http.organization.parts import PROJECT, CurrentActor, DeletedObject, ListObject, listed
from gateway.http.organization.values import NO_LIMIT, Limit, Params
from gateway.http.query import query
from gateway.store import rate_limits as store
from gateway.store.organization import Organization
from gateway.store.pages import Page
from gateway.store.rate_limits import ALL, RateLimitRow, rate_limit_id

LIMITS = f"{PROJECT}/rate_limits"
LIMIT = f"{LIMITS}/{{rate_limit_id:path}}"  # some clients write a model's slashes as they are
FIELDS = {
    "max_requests_per_1_minute": "requests_per_minute",
    "max_tokens_per_1_minute": "tokens_per_minute",
    "batch_1_day_max_input_tokens": "batch_tokens_per_day",
    "max_concurrent_requests": "concurrent_requests",
}
"""Names of limits in the API, and in the database."""
ANY_MODEL = "*"
_ID = re.compile(r"rl-(?P<model>[^\x00-\x20\x7f]{1,256}?)(@(?P<key>key_\w{1,64}))?", re.ASCII)


class RateLimitsQuery(Params):
    """Which limits to list."""

    after: Text | None = None
    before: Text | None = None
    limit: int = Field(default=100, ge=1, le=1_000)


class RateLimitUpdate(Params):
    """Body that changes limits; null, or the largest number, is no limit."""

    max_requests_per_1_minute: Limit | None = None
    max_tokens_per_1_minute: Limit | None = None
    batch_1_day_max_input_tokens: Limit | None = None
    max_concurrent_requests: Limit | None = None
    """Requests at the same time."""

    @property
    def values(self) -> dict[str, int | None]:
        """What it changes, by the database's names."""
        found = {FIELDS[name]: getattr(self, name) for name in self.model_fields_set}
        return {name: None if value == NO_LIMIT else value for name, value in found.items()}


class RateLimitObject(BaseModel):
    """OpenAI's rate limit, with the gateway's own."""

    id: str
    object: Literal["project.rate_limit"] = "project.rate_limit"
    model: str
    max_requests_per_1_minute: int
    max_tokens_per_1_minute: int
    batch_1_day_max_input_tokens: int | None
    max_concurrent_requests: int | None
    api_key_id: str | None
    """The one key that it is for."""

    @classmethod
    def of(cls, row: RateLimitRow) -> "RateLimitObject":
        """A row as the API shows it."""
        requests, tokens = row.requests_per_minute, row.tokens_per_minute
        return cls(
            id=rate_limit_id(row),
            model=row.model or ANY_MODEL,
            max_requests_per_1_minute=NO_LIMIT if requests is None else requests,
            max_tokens_per_1_minute=NO_LIMIT if tokens is None else tokens,
            batch_1_day_max_input_tokens=row.batch_tokens_per_day,
            max_concurrent_requests=row.concurrent_requests,
            api_key_id=row.key_id or None,
        )


def rate_limits_router(organization: Organization) -> APIRouter:
    """Routes that show and change limits."""
    router = APIRouter()

    @router.get(LIMITS)
    async def list_all(
        project_id: str, wanted: Annotated[RateLimitsQuery, Depends(query(RateLimitsQuery))]
    ) -> ListObject[RateLimitObject]:
        """List a project's limits; the first one is for all models."""
        rows = await organization.read(lambda c: store.list_rate_limits(c, project_id))
        return listed(_page([*rows], wanted), RateLimitObject.of)

    @router.post(LIMIT)
    async def update(
        project_id: str, rate_limit_id: str, body: RateLimitUpdate, actor: CurrentActor
    ) -> RateLimitObject:
        """Change limits; there need not have been any for this model."""
        place = _place(project_id, rate_limit_id)
        row = await organization.change(
            actor, lambda change: store.update_rate_limit(change, place, body.values)
        )
        return RateLimitObject.of(row)

    @router.delete(LIMIT)
    async def delete(project_id: str, rate_limit_id: str, actor: CurrentActor) -> DeletedObject:
        """Remove limits, which OpenAI's API cannot."""
        place = _place(project_id, rate_limit_id)
        nothing = dict.fromkeys(FIELDS.values())
        await organization.change(
            actor, lambda change: store.update_rate_limit(change, place, nothing)
        )
        return DeletedObject(id=rate_limit_id, object="project.rate_limit.deleted")

    return router


def _place(project_id: str, written: str) -> RateLimitRow:
    found = _ID.fullmatch(written)
    if found is None:
        raise NotFound.of("rate limit", written)
    model = found["model"].replace("~1", "/").replace("~0", "~")
    return RateLimitRow(
        project_id=project_id,
        model=ALL if model == ANY_MODEL else model,
        key_id=found["key"] or ALL,
    )


def _page(rows: list[RateLimitRow], wanted: RateLimitsQuery) -> Page[RateLimitRow]:
    """Page of rows in order; a place between them need not exist any more."""

    def place(written: str) -> tuple[str, str]:
        row = _place("", written)
        return row.model, row.key_id

    if wanted.after is not None:
        after = place(wanted.after)
        rows = [row for row in rows if (row.model, row.key_id) > after]
    if wanted.before is not None:
        before = place(wanted.before)
        rows = [row for row in rows if (row.model, row.key_id) < before]
        return Page(rows[-wanted.limit :], has_more=len(rows) > wanted.limit)
    return Page(rows[: wanted.limit], has_more=len(rows) > wanted.limit)
