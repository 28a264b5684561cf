"""Usage: `/v1/organization/usage/...`, from the ledger's sums.

`completions` has all requests whose answer is generated, `embeddings` those whose answer is
computed from the prompt alone, `audio_transcriptions` those with audio. The other kinds belong to
products that the gateway does not have, and are empty.
"""

from collections import defaultdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from gateway.config.route_paths import FORM_ROUTES
from gateway.http.organization.buckets import BucketPage, BucketQuery, PeriodPage
from gateway.http.organization.values import Texts
from gateway.http.query import query
from gateway.request.routes import PAIR_ROUTES
from gateway.store.organization import Organization
from gateway.store.usage_sums import Group, UsageFilter, UsageSum, usage_sums

AUDIO = tuple(sorted(FORM_ROUTES))
EMBEDDINGS = tuple(
    sorted((PAIR_ROUTES - {"/generative_scoring"}) | {"/v1/embeddings", "/pooling", "/classify"})
)
GENERATED, COMPUTED = "completions", "embeddings"
KINDS = {
    GENERATED: UsageFilter(excluded_endpoints=EMBEDDINGS + AUDIO),
    COMPUTED: UsageFilter(endpoints=EMBEDDINGS),
    "audio_transcriptions": UsageFilter(endpoints=AUDIO),
}
"""Kinds of usage that the gateway has, and the requests that belong to them."""
EMPTY_KINDS = (
    *("audio_speeches", "code_interpreter_sessions", "decisions", "file_search_calls", "images"),
    *("moderations", "vector_stores", "web_search_calls"),
)
Width = Literal["1m", "1h", "1d"]
WIDTHS: dict[Width, tuple[int, int, int]] = {
    "1m": (60, 60, 1440),
    "1h": (3_600, 24, 168),
    "1d": (86_400, 7, 31),
}
"""Seconds of a period, and how many are usual and allowed in a page."""
OWN_GROUPS: tuple[Group, ...] = (
    *("project_id", "user_id", "api_key_id", "model", "batch", "service_tier"),
)


class UsageQuery(BucketQuery):
    """Which usage to answer with."""

    bucket_width: Width = "1d"
    group_by: list[Group] = Field(default_factory=list, max_length=len(OWN_GROUPS))
    project_ids: Texts = Field(default_factory=list)
    user_ids: Texts = Field(default_factory=list)
    api_key_ids: Texts = Field(default_factory=list)
    models: Texts = Field(default_factory=list)
    batch: bool | None = None

    @property
    def groups(self) -> list[Group]:
        """Each group once."""
        return list(dict.fromkeys(self.group_by))

    def filter(self, kind: UsageFilter) -> UsageFilter:
        """Which requests count, of those of a kind."""
        return UsageFilter(
            endpoints=kind.endpoints,
            excluded_endpoints=kind.excluded_endpoints,
            project_ids=self.project_ids,
            user_ids=self.user_ids,
            api_key_ids=self.api_key_ids,
            models=self.models,
            is_batch=self.batch,
        )


class EmptyUsageQuery(BucketQuery):
    """A question whose answer is that there was nothing."""

    model_config = ConfigDict(extra="ignore")

    bucket_width: Width = "1d"


class UsageResult(BaseModel):
    """OpenAI's result, with what the ledger knows beyond it."""

    object: str
    num_model_requests: int
    input_tokens: int
    input_cached_tokens: int
    input_uncached_tokens: int
    output_tokens: int
    seconds: int = 0
    """Required of transcriptions. The ledger does not know how long the audio is."""
    project_id: str | None = None
    user_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    batch: bool | None = None
    service_tier: str | None = None
    num_attempts: int
    """Requests to engines, those that failed and were repeated included."""
    num_estimated: int
    """Attempts of which no engine could tell; what clients got of them counts."""
    wasted_input_tokens: int
    """Tokens that were computed and not charged, for attempts that failed."""
    wasted_output_tokens: int
    device_seconds: float
    """Time of devices."""

    @classmethod
    def of(cls, kind: str, row: UsageSum) -> "UsageResult":
        """Sums as the API shows them."""
        return cls.model_validate(
            {
                "object": f"organization.usage.{kind}.result",
                "num_model_requests": row.requests,
                "input_tokens": row.prompt_tokens,
                "input_cached_tokens": row.cached_tokens,
                "input_uncached_tokens": row.prompt_tokens - row.cached_tokens,
                "output_tokens": row.completion_tokens,
                "num_attempts": row.attempts,
                "num_estimated": row.estimated,
                "wasted_input_tokens": row.wasted_prompt_tokens,
                "wasted_output_tokens": row.wasted_completion_tokens,
                "device_seconds": row.device_us / 1_000_000,
                **row.groups,
            }
        )


def usage_router(organization: Organization) -> APIRouter:
    """Routes for each kind of usage."""
    router = APIRouter(prefix="/v1/organization/usage")
    for kind, requests in KINDS.items():
        _add_kind(router, organization, kind, requests)

    async def nothing(
        wanted: Annotated[EmptyUsageQuery, Depends(query(EmptyUsageQuery))],
    ) -> BucketPage[UsageResult]:
        """The periods, without anything."""
        width_s, usual, most = WIDTHS[wanted.bucket_width]
        page = PeriodPage(wanted, width_s, organization.now_s, usual=usual, most=most)
        return page.answer({})

    for kind in EMPTY_KINDS:
        router.add_api_route(f"/{kind}", nothing)
    return router


def _add_kind(
    router: APIRouter, organization: Organization, kind: str, requests: UsageFilter
) -> None:
    @router.get(f"/{kind}")
    async def usage(
        wanted: Annotated[UsageQuery, Depends(query(UsageQuery))],
    ) -> BucketPage[UsageResult]:
        """Usage by period and group."""
        width_s, usual, most = WIDTHS[wanted.bucket_width]
        page = PeriodPage(wanted, width_s, organization.now_s, usual=usual, most=most)
        rows = await organization.read(
            lambda connection: usage_sums(
                connection, page.periods, wanted.groups, wanted.filter(requests)
            )
        )
        results: dict[int, list[UsageResult]] = defaultdict(list)
        for row in rows:
            results[row.at_s].append(UsageResult.of(kind, row))
        return page.answer(results)
