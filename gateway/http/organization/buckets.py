"""Periods of usage and costs, in pages: what is asked for, and how it is answered."""

import re
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, Field, model_validator

from gateway.config.project_values import Text
from gateway.errors.request import InvalidRequest
from gateway.http.organization.values import Params, TimeS
from gateway.store.usage_sums import Periods

ResultT = TypeVar("ResultT", bound=BaseModel)
_PAGE = re.compile(r"page_([0-9]{1,12})", re.ASCII)


class BucketQuery(Params):
    """Which periods to answer for."""

    start_time: TimeS
    end_time: TimeS | None = None
    page: Text | None = None
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _has_order(self) -> "BucketQuery":
        if self.end_time is not None and self.end_time <= self.start_time:
            raise ValueError("`end_time` must be after `start_time`")
        return self


class BucketObject(BaseModel, Generic[ResultT]):
    """OpenAI's bucket: one period."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[ResultT]


class BucketPage(BaseModel, Generic[ResultT]):
    """OpenAI's page of buckets."""

    object: Literal["page"] = "page"
    data: list[BucketObject[ResultT]]
    has_more: bool
    next_page: str | None


class PeriodPage:
    """The periods of one page: whole ones, from the one that `start_time` is in.

    Raises:
        InvalidRequest: there are more than `most` in a page, or it is no page.
    """

    def __init__(
        self, wanted: BucketQuery, width_s: int, now_s: int, *, usual: int, most: int
    ) -> None:
        if wanted.limit is not None and wanted.limit > most:
            raise InvalidRequest(f"`limit` must be at most {most} for this width.", "limit")
        start_s = wanted.start_time if wanted.page is None else _page_start(wanted.page)
        from_s = start_s - start_s % width_s
        # Nothing has happened after now, and pages must come to an end.
        end_s = min(wanted.end_time or now_s + 1, now_s + 1)
        to_s = -(-end_s // width_s) * width_s
        most_s = from_s + (wanted.limit or usual) * width_s
        self.periods = Periods(width_s=width_s, from_s=from_s, to_s=max(from_s, min(to_s, most_s)))
        self._has_more = most_s < to_s

    def answer(self, results: dict[int, list[ResultT]]) -> BucketPage[ResultT]:
        """The page with the results of each period, by its beginning."""
        periods = self.periods
        data = [
            BucketObject(
                start_time=at_s, end_time=at_s + periods.width_s, results=results.get(at_s, [])
            )
            for at_s in periods
        ]
        next_page = f"page_{periods.to_s}" if self._has_more else None
        return BucketPage(data=data, has_more=self._has_more, next_page=next_page)


def _page_start(page: str) -> int:
    found = _PAGE.fullmatch(page)
    if found is None:
        raise InvalidRequest("`page` must be the `next_page` of the answer before.", "page")
    return int(found[1])
