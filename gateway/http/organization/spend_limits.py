"""Hard spend limits of a project: `.../spend_limit`, by month or day, perhaps for one key."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from gateway.config.project_values import Text
from gateway.http.organization.parts import PROJECT, CurrentActor
from gateway.http.organization.values import Cents, Params, cents_to_nano, nano_to_cents
from gateway.http.query import query
from gateway.ledger.calendar import Interval
from gateway.store import spend_limits as store
from gateway.store.organization import Organization
from gateway.store.rate_limits import ALL
from gateway.store.spend_limits import SpendLimitRow
from gateway.store.spending import spent_nano

LIMIT = f"{PROJECT}/spend_limit"


class SpendLimitPlace(Params):
    """Which of a project's limits."""

    interval: Interval = "month"
    api_key_id: Text | None = None

    def row(self, project_id: str, cents: int = 0) -> SpendLimitRow:
        """The limit as the database has it."""
        return SpendLimitRow(
            project_id=project_id,
            interval=self.interval,
            key_id=self.api_key_id or ALL,
            amount_nano=cents_to_nano(cents),
        )


class SpendLimitUpdate(SpendLimitPlace):
    """Body that sets a limit."""

    currency: Literal["USD"]
    threshold_amount: Cents


class Enforcement(BaseModel):
    """Whether a limit refuses requests now."""

    status: Literal["inactive", "enforcing"]


class SpendLimitObject(BaseModel):
    """OpenAI's spend limit, by month or day; perhaps for one key."""

    object: Literal["project.spend_limit"] = "project.spend_limit"
    currency: Literal["USD"] = "USD"
    interval: Interval
    threshold_amount: int
    api_key_id: str | None
    enforcement: Enforcement
    spent_amount: int
    """Whole cents that are spent in the current period."""

    @classmethod
    def of(cls, row: SpendLimitRow, spent: int) -> "SpendLimitObject":
        """A row as the API shows it, with the nano-units that are spent."""
        return cls(
            interval=row.interval,
            threshold_amount=nano_to_cents(row.amount_nano),
            api_key_id=row.key_id or None,
            enforcement=Enforcement(status="enforcing" if spent >= row.amount_nano else "inactive"),
            spent_amount=nano_to_cents(spent),
        )


class DeletedSpendLimit(BaseModel):
    """Confirmation of a deletion."""

    object: Literal["project.spend_limit.deleted"] = "project.spend_limit.deleted"
    deleted: Literal[True] = True


Place = Annotated[SpendLimitPlace, Depends(query(SpendLimitPlace))]


def spend_limits_router(organization: Organization) -> APIRouter:
    """Routes that show, set and delete limits."""
    router = APIRouter()

    async def shown(row: SpendLimitRow) -> SpendLimitObject:
        spent = await organization.read(
            lambda connection: spent_nano(
                connection, row.project_id, row.interval, row.key_id, organization.now_s
            )
        )
        return SpendLimitObject.of(row, spent)

    @router.get(LIMIT)
    async def retrieve(project_id: str, place: Place) -> SpendLimitObject:
        """A project's limit, by month unless `interval` is `day`."""
        wanted = place.row(project_id)
        return await shown(await organization.read(lambda c: store.spend_limit(c, wanted)))

    @router.post(LIMIT)
    async def update(
        project_id: str, body: SpendLimitUpdate, actor: CurrentActor
    ) -> SpendLimitObject:
        """Set a project's limit."""
        wanted = body.row(project_id, body.threshold_amount)
        row = await organization.change(actor, lambda c: store.set_spend_limit(c, wanted))
        return await shown(row)

    @router.delete(LIMIT)
    async def delete(project_id: str, place: Place, actor: CurrentActor) -> DeletedSpendLimit:
        """Remove a project's limit."""
        wanted = place.row(project_id)
        await organization.change(actor, lambda c: store.delete_spend_limit(c, wanted))
        return DeletedSpendLimit()

    return router
