"""What all routes of State share: whose request it is, lists, deletions."""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, Literal, TypeVar
from urllib.parse import unquote

from fastapi import Depends, Request
from pydantic import BaseModel

from gateway.header_names import PROJECT
from gateway.store.pages import Page

ItemT = TypeVar("ItemT", bound=BaseModel)
RowT = TypeVar("RowT")


def project_of(request: Request) -> str:
    """Id of the project whose client asks; empty where nobody is authenticated."""
    return unquote(request.headers.get(PROJECT.decode(), ""))


CurrentProject = Annotated[str, Depends(project_of)]
"""The project whose client asks, as a parameter of a route."""


class ObjectList(BaseModel, Generic[ItemT]):
    """OpenAI's list, with a page of its objects."""

    object: Literal["list"] = "list"
    data: Sequence[ItemT]
    first_id: str = ""
    last_id: str = ""
    has_more: bool = False


def listed(page: Page[RowT], make: Callable[[RowT], ItemT]) -> ObjectList[ItemT]:
    """A page of rows as a list of objects, each with an `id`."""
    data = [make(row) for row in page.rows]
    ids = [str(getattr(each, "id")) for each in data]  # noqa: B009 - the bound has no `id`
    return ObjectList(
        data=data,
        first_id=ids[0] if ids else "",
        last_id=ids[-1] if ids else "",
        has_more=page.has_more,
    )
