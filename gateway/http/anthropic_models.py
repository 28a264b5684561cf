"""`/v1/models` in the shape of Anthropic's API, for clients that send its version."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from gateway.asgi import Scope, header
from gateway.errors.request import InvalidRequest

MODELS = "/v1/models"
VERSION = b"anthropic-version"
"""Header that every client of Anthropic's API sends."""
MAX_LISTED = 1000
DEFAULT_LISTED = 20


class AnthropicModel(BaseModel):
    """Anthropic's model object."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: datetime
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None = None


class AnthropicModelList(BaseModel):
    """A page of Anthropic's list of models."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class PageQuery(BaseModel):
    """Which part of the list a client wants."""

    limit: int = Field(DEFAULT_LISTED, ge=1, le=MAX_LISTED)
    after_id: str | None = None
    before_id: str | None = None


PAGE_PARAMETERS = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": "Only for clients that send `anthropic-version`.",
        "schema": schema,
    }
    for name, schema in PageQuery.model_json_schema()["properties"].items()
]
"""Description of `PageQuery` in OpenAPI: others may send what they like."""


def speaks_anthropic(scope: Scope) -> bool:
    """Whether a request for models comes from a client of Anthropic's API."""
    path = scope["path"]
    is_for_models = path == MODELS or path.startswith(f"{MODELS}/")
    return is_for_models and bool(header(scope["headers"], VERSION, b""))


def page_query(request: Request) -> PageQuery:
    """Which part of the list a client of Anthropic's API wants.

    OpenAI's list has no pages: its clients' parameters are not looked at.

    Raises:
        RequestValidationError: a parameter has a wrong value.
    """
    try:
        return PageQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        faults = [{**each, "loc": ("query", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(faults) from None


def anthropic_model(name: str, created_s: int, max_tokens: int | None) -> AnthropicModel:
    """The object of a model, whose context has `max_tokens`."""
    created_at = datetime.fromtimestamp(created_s, UTC)
    return AnthropicModel(
        id=name, display_name=name, created_at=created_at, max_input_tokens=max_tokens
    )


def page_of(models: Sequence[AnthropicModel], query: PageQuery) -> AnthropicModelList:
    """The part of a list that a client asks for.

    Raises:
        InvalidRequest: it begins or ends with a model that is not in the list.
    """
    start, end = 0, len(models)
    places = {model.id: place for place, model in enumerate(models)}
    if query.after_id is not None:
        start = _place(places, "after_id", query.after_id) + 1
    if query.before_id is not None:
        end = _place(places, "before_id", query.before_id)
    wanted = models[start:end]
    is_backward = query.before_id is not None and query.after_id is None
    page = wanted[-query.limit :] if is_backward else wanted[: query.limit]
    ids = [model.id for model in page]
    return AnthropicModelList(
        data=list(page),
        has_more=len(page) < len(wanted),
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )


def _place(places: dict[str, int], param: str, name: str) -> int:
    if name not in places:
        raise InvalidRequest(f"There is no model `{name}`.", param)
    return places[name]
