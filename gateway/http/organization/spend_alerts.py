"""Spend alerts of a project: `.../spend_alerts`."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from gateway.config.project_values import Text
from gateway.http.organization.parts import (
    PROJECT,
    CurrentActor,
    DeletedObject,
    ListObject,
    listed,
)
from gateway.http.organization.values import (
    Cents,
    Params,
    TwoWayQuery,
    cents_to_nano,
    nano_to_cents,
)
from gateway.http.query import query
from gateway.store import spend_alerts as store
from gateway.store.organization import Organization
from gateway.store.spend_alerts import SpendAlertRow

ALERTS = f"{PROJECT}/spend_alerts"
ALERT = f"{ALERTS}/{{alert_id}}"


class ChannelParams(Params):
    """Who is told."""

    type: Literal["email"]
    recipients: list[Text] = Field(max_length=100)
    subject_prefix: Text | None = None


class AlertParams(Params):
    """Body that creates or changes an alert."""

    currency: Literal["USD"]
    interval: Literal["month"]
    threshold_amount: Cents
    notification_channel: ChannelParams

    @property
    def values(self) -> dict[str, object]:
        """The same by the database's names."""
        channel = self.notification_channel
        return {
            "interval": self.interval,
            "amount_nano": cents_to_nano(self.threshold_amount),
            "recipients": tuple(channel.recipients),
            "subject_prefix": channel.subject_prefix,
        }


class ChannelObject(BaseModel):
    """Who is told."""

    type: Literal["email"] = "email"
    recipients: list[str]
    subject_prefix: str | None


class AlertObject(BaseModel):
    """OpenAI's spend alert of a project."""

    id: str
    object: Literal["project.spend_alert"] = "project.spend_alert"
    currency: Literal["USD"] = "USD"
    interval: Literal["month", "day"]
    threshold_amount: int
    notification_channel: ChannelObject

    @classmethod
    def of(cls, row: SpendAlertRow) -> "AlertObject":
        """A row as the API shows it."""
        return cls(
            id=row.id,
            interval=row.interval,
            threshold_amount=nano_to_cents(row.amount_nano),
            notification_channel=ChannelObject(
                recipients=list(row.recipients), subject_prefix=row.subject_prefix
            ),
        )


def spend_alerts_router(organization: Organization) -> APIRouter:
    """Routes that create, show, change and delete alerts."""
    router = APIRouter()

    @router.post(ALERTS)
    async def create(project_id: str, body: AlertParams, actor: CurrentActor) -> AlertObject:
        """Create an alert."""
        row = await organization.change(
            actor, lambda change: store.create_spend_alert(change, project_id, body.values)
        )
        return AlertObject.of(row)

    @router.get(ALERTS)
    async def list_all(
        project_id: str, wanted: Annotated[TwoWayQuery, Depends(query(TwoWayQuery))]
    ) -> ListObject[AlertObject]:
        """List a project's alerts."""
        page = await organization.read(
            lambda connection: store.list_spend_alerts(connection, project_id, wanted.cursor)
        )
        return listed(page, AlertObject.of)

    @router.get(ALERT)
    async def retrieve(project_id: str, alert_id: str) -> AlertObject:
        """Retrieve an alert."""
        row = await organization.read(lambda c: store.spend_alert(c, project_id, alert_id))
        return AlertObject.of(row)

    @router.post(ALERT)
    async def update(
        project_id: str, alert_id: str, body: AlertParams, actor: CurrentActor
    ) -> AlertObject:
        """Change an alert."""
        row = await organization.change(
            actor,
            lambda change: store.update_spend_alert(change, project_id, alert_id, body.values),
        )
        return AlertObject.of(row)

    @router.delete(ALERT)
    async def delete(project_id: str, alert_id: str, actor: CurrentActor) -> DeletedObject:
        """Delete an alert."""
        await organization.change(
            actor, lambda change: store.delete_spend_alert(change, project_id, alert_id)
        )
        return DeletedObject(id=alert_id, object="project.spend_alert.deleted")

    return router
