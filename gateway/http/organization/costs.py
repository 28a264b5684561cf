"""Costs by day: `/v1/organization/costs`, from the ledger's sums."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from gateway.config.accounts import NANO
from gateway.http.organization.buckets import BucketPage, BucketQuery, PeriodPage
from gateway.http.organization.values import Texts
from gateway.http.query import query
from gateway.ledger.calendar import DAY_S
from gateway.store.organization import Organization
from gateway.store.usage_sums import Group, UsageFilter, UsageSum, idle_nano, usage_sums

ITEM_END = ", tokens"
"""End of a line item's name, after the model's."""
CostGroup = Literal["project_id", "user_id", "line_item", "api_key_id"]
GROUPS: Mapping[CostGroup, Group] = {
    "project_id": "project_id",
    "user_id": "user_id",
    "line_item": "model",
    "api_key_id": "api_key_id",
}
IDLE_GROUPS = {"project_id"}
"""Groups for which the cost of idle devices is known."""


class CostsQuery(BucketQuery):
    """Which costs to answer with."""

    bucket_width: Literal["1d"] = "1d"
    group_by: list[CostGroup] = Field(default_factory=list, max_length=len(GROUPS))
    project_ids: Texts = Field(default_factory=list)
    api_key_ids: Texts = Field(default_factory=list)
    line_items: Texts = Field(default_factory=list)

    @property
    def groups(self) -> list[Group]:
        """Each group once, as the ledger has it."""
        return list(dict.fromkeys(GROUPS[each] for each in self.group_by))

    @property
    def filter(self) -> UsageFilter:
        """Which requests count."""
        return UsageFilter(
            project_ids=self.project_ids,
            api_key_ids=self.api_key_ids,
            models=[each.removesuffix(ITEM_END) for each in self.line_items],
        )

    @property
    def has_idle_costs(self) -> bool:
        """Whether the cost of idle devices is known for each result."""
        is_whole = not self.api_key_ids and not self.line_items
        return is_whole and set(self.group_by) <= IDLE_GROUPS


class Amount(BaseModel):
    """An amount of money; `nano` is exact."""

    value: float
    currency: str
    nano: int
    """Billionths of the currency's unit."""

    @classmethod
    def of(cls, nano: int, currency: str) -> "Amount":
        """An amount of nano-units."""
        return cls(value=nano / NANO, currency=currency, nano=nano)


class CostsResult(BaseModel):
    """OpenAI's result, with what devices have cost."""

    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: Amount
    """What requests cost by their prices."""
    project_id: str | None = None
    user_id: str | None = None
    api_key_id: str | None = None
    line_item: str | None = None
    quantity: float | None = None
    quantity_unit: str | None = None
    device_amount: Amount
    """What the time of devices cost that requests used."""
    idle_amount: Amount | None = None
    """Part in the cost of devices that were held and not used."""
    wasted_amount: Amount
    """What attempts cost that failed and were repeated: nobody pays for it."""


def costs_router(organization: Organization, currency: str) -> APIRouter:
    """The route for costs; `currency`: code of ISO 4217 in lower case."""
    router = APIRouter()

    @router.get("/v1/organization/costs")
    async def costs(
        wanted: Annotated[CostsQuery, Depends(query(CostsQuery))],
    ) -> BucketPage[CostsResult]:
        """Costs by day and group."""
        page = PeriodPage(wanted, DAY_S, organization.now_s, usual=7, most=180)
        rows = await organization.read(
            lambda connection: usage_sums(connection, page.periods, wanted.groups, wanted.filter)
        )
        idle: dict[tuple[int, str], int] = {}
        if wanted.has_idle_costs:
            idle = await organization.read(
                lambda connection: idle_nano(connection, page.periods, wanted.project_ids)
            )
        return page.answer(_results(rows, idle, wanted, currency))

    return router


def _results(
    rows: list[UsageSum], idle: Mapping[tuple[int, str], int], wanted: CostsQuery, currency: str
) -> dict[int, list[CostsResult]]:
    by_project = "project_id" in wanted.group_by
    shares: dict[tuple[int, str], int] = defaultdict(int)
    for (at_s, project), nano in idle.items():
        shares[at_s, project if by_project else ""] += nano
    results: dict[int, list[CostsResult]] = defaultdict(list)
    for row in rows:
        share = shares.pop((row.at_s, str(row.groups.get("project_id") or "")), 0)
        results[row.at_s].append(_result(row, share if wanted.has_idle_costs else None, currency))
    for (at_s, project), nano in sorted(shares.items()):
        groups = {"project_id": project} if by_project else {}
        results[at_s].append(_result(UsageSum(at_s=at_s, groups={**groups}), nano, currency))
    return results


def _result(row: UsageSum, idle: int | None, currency: str) -> CostsResult:
    groups = dict(row.groups)
    item: dict[str, object] = {}
    if "model" in groups:
        tokens = row.prompt_tokens + row.completion_tokens
        item = {"line_item": f"{groups.pop('model')}{ITEM_END}", "quantity": tokens}
        item["quantity_unit"] = "tokens"
    return CostsResult.model_validate(
        {
            "amount": Amount.of(row.cost_nano, currency),
            "device_amount": Amount.of(row.device_cost_nano, currency),
            "wasted_amount": Amount.of(row.wasted_nano, currency),
            "idle_amount": None if idle is None else Amount.of(idle, currency),
            **groups,
            **item,
        }
    )
