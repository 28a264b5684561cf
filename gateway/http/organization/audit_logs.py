"""The audit log: `/v1/organization/audit_logs`, newest first."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.config.project_values import Text
from gateway.http.organization.parts import ADMIN_KEY_PREFIX, ListObject, listed
from gateway.http.organization.rate_limits import FIELDS
from gateway.http.organization.values import ListQuery, Params, Texts, TimeS
from gateway.http.query import query
from gateway.store.audit_log import AuditFilter, AuditRow, list_audit_log
from gateway.store.organization import Organization
from gateway.store.pages import Cursor

API_NAMES = {column: name for name, column in FIELDS.items()}
CONFIG_ACTOR = "config"
"""Id of the administrator that sends the `admin_key` of the gateway config."""


class EffectiveAt(Params):
    """Range of times, in Unix seconds."""

    gt: TimeS | None = None
    gte: TimeS | None = None
    lt: TimeS | None = None
    lte: TimeS | None = None

    @property
    def since_s(self) -> int | None:
        """The first second of the range."""
        bounds = [self.gte, None if self.gt is None else self.gt + 1]
        return max((each for each in bounds if each is not None), default=None)

    @property
    def until_s(self) -> int | None:
        """The last second of the range."""
        bounds = [self.lte, None if self.lt is None else self.lt - 1]
        return min((each for each in bounds if each is not None), default=None)


class AuditQuery(ListQuery):
    """Which entries to list."""

    before: Text | None = None
    effective_at: EffectiveAt = EffectiveAt()
    event_types: Texts = Field(default_factory=list)
    actor_ids: Texts = Field(default_factory=list)
    actor_emails: Texts = Field(default_factory=list)
    project_ids: Texts = Field(default_factory=list)
    resource_ids: Texts = Field(default_factory=list)
    tenant_only: bool = False

    @field_validator("tenant_only")
    @classmethod
    def _is_false(cls, tenant_only: bool) -> bool:
        if tenant_only:
            raise ValueError("is not supported: the gateway has one organization and no tenants")
        return tenant_only

    @property
    def cursor(self) -> Cursor:
        """Place in the log."""
        return Cursor(after=self.after, before=self.before, limit=self.limit, order="desc")

    @property
    def filter(self) -> AuditFilter:
        """Which entries count."""
        return AuditFilter(
            since_s=self.effective_at.since_s,
            until_s=self.effective_at.until_s,
            events=self.event_types,
            # A token's subject may be an address.
            actor_ids=[*self.actor_ids, *self.actor_emails],
            project_ids=self.project_ids,
            object_ids=self.resource_ids,
        )


class AuditObject(BaseModel):
    """OpenAI's audit log entry; the details are under the name of the event."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: str
    effective_at: int
    actor: dict[str, object]
    project: dict[str, object] | None

    @classmethod
    def of(cls, row: AuditRow) -> "AuditObject":
        """A row as the API shows it."""
        project: dict[str, Any] = {"id": row.project_id, "name": row.project_name}
        return cls(
            id=row.id,
            type=row.event,
            effective_at=row.at_s,
            actor=_actor(row),
            project=project if row.project_id else None,
            **_event(row),
        )


def audit_logs_router(organization: Organization) -> APIRouter:
    """The route that lists what has been changed."""
    router = APIRouter()

    @router.get("/v1/organization/audit_logs")
    async def list_all(
        wanted: Annotated[AuditQuery, Depends(query(AuditQuery))],
    ) -> ListObject[AuditObject]:
        """List what administrators have changed, newest first."""
        page = await organization.read(
            lambda connection: list_audit_log(connection, wanted.cursor, wanted.filter)
        )
        return listed(page, AuditObject.of)

    return router


def _actor(row: AuditRow) -> dict[str, object]:
    if row.actor_id == CONFIG_ACTOR or row.actor_id.startswith(ADMIN_KEY_PREFIX):
        key = {"id": row.actor_id, "type": "user", "ip_address": row.address or None}
        return {"type": "api_key", "api_key": key}
    session = {"user": {"id": row.actor_id}, "ip_address": row.address or None}
    return {"type": "session", "session": session}


def _event(row: AuditRow) -> dict[str, Any]:
    return {row.event: _details(row)}


def _details(row: AuditRow) -> dict[str, object]:
    before, after = _named(row.before), _named(row.after)
    details: dict[str, object] = {"id": row.object_id, "before": before, "after": after}
    if row.event.endswith((".created", ".added")):
        details["data"] = after
    elif row.event.endswith(".updated"):
        old = before or {}
        changes = {name: value for name, value in (after or {}).items() if old.get(name) != value}
        details["changes_requested"] = changes
    return details


def _named(values: Mapping[str, object] | None) -> dict[str, object] | None:
    """Values by the API's names."""
    if values is None:
        return None
    return {API_NAMES.get(name, name): value for name, value in values.items()}
