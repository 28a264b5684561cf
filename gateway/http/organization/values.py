"""Values that the admin API accepts: texts, ids, numbers that a database can hold."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.config.project_values import Text
from gateway.store.pages import Cursor

NO_LIMIT = 2**53 - 1
"""A limit that limits nothing, where OpenAI's types require a number: JSON's largest exact one."""
MAX_LIFETIME_S = 100 * 365 * 86_400
MAX_CENTS = 10**11
"""A billion dollars: in nano-units, it still fits into 64 bits."""
NANO_PER_CENT = 10**7
MAX_LIST = 1_000
MAX_TIME_S = 10**11
"""Seconds of some 3000 years."""


class Params(BaseModel):
    """Parameters of a request: no unknown ones, and none of another type."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def given(self, *names: str) -> dict[str, object]:
        """Those of the named parameters that the request has."""
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


Texts = Annotated[list[Text], Field(max_length=MAX_LIST)]
LifetimeS = Annotated[int, Field(ge=1, le=MAX_LIFETIME_S)]
Limit = Annotated[int, Field(ge=0, le=NO_LIMIT)]
Cents = Annotated[int, Field(ge=0, le=MAX_CENTS)]
TimeS = Annotated[int, Field(ge=0, le=MAX_TIME_S)]


class ListQuery(Params):
    """Which page of a list."""

    after: Text | None = None
    limit: int = Field(default=20, ge=1, le=100)

    @property
    def cursor(self) -> Cursor:
        """Place in the list."""
        return Cursor(after=self.after, limit=self.limit)


class OrderedQuery(ListQuery):
    """Which page of a list, in either order."""

    order: Literal["asc", "desc"] = "asc"

    @property
    def cursor(self) -> Cursor:
        """Place in the list."""
        return Cursor(after=self.after, limit=self.limit, order=self.order)


class TwoWayQuery(OrderedQuery):
    """Which page of a list, forwards or backwards."""

    before: Text | None = None

    @property
    def cursor(self) -> Cursor:
        """Place in the list."""
        return Cursor(after=self.after, before=self.before, limit=self.limit, order=self.order)


def cents_to_nano(cents: int) -> int:
    """Cents in nano-units of the currency."""
    return cents * NANO_PER_CENT


def nano_to_cents(nano: int) -> int:
    """Nano-units of the currency in whole cents."""
    return nano // NANO_PER_CENT
