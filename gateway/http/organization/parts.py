"""What all routes of the admin API share: lists, deletions, and who is asking."""

from collections.abc import Callable
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel

from gateway.store.changes import Actor
from gateway.store.pages import Page

ACTOR = "gateway.actor"
"""Where a request's scope says who is asking."""
PROJECT = "/v1/organization/projects/{project_id}"
ADMIN_KEY_PREFIX = "key_"
"""Beginning of the ids of administrators that send an admin key; others send a token."""

ItemT = TypeVar("ItemT", bound=BaseModel)
RowT = TypeVar("RowT")


def actor_of(request: Request) -> Actor:
    """Who is asking."""
    actor = request.scope[ACTOR]
    if not isinstance(actor, Actor):
        raise TypeError(f"{ACTOR} is no Actor")
    return actor


CurrentActor = Annotated[Actor, Depends(actor_of)]


class ListObject(BaseModel, Generic[ItemT]):
    """OpenAI's list, with a page of its objects."""

    object: Literal["list"] = "list"
    data: list[ItemT]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class DeletedObject(BaseModel):
    """Confirmation of a deletion."""

    id: str
    object: str
    deleted: Literal[True] = True


def listed(page: Page[RowT], make: Callable[[RowT], ItemT]) -> ListObject[ItemT]:
    """A page of rows as a list of objects, each with an `id`."""
    data = [make(row) for row in page.rows]
    ids = [str(getattr(each, "id")) for each in data]  # noqa: B009 - the bound has no `id`
    return ListObject(
        data=data,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=page.has_more,
    )
