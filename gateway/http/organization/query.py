"""Query parameters as OpenAI's client writes them: `name[]` for lists, `name[key]` for objects."""

import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

ParamsT = TypeVar("ParamsT", bound=BaseModel)
Parsed = dict[str, str | list[str] | dict[str, str]]


def query(model: type[ParamsT]) -> Callable[[Request], ParamsT]:
    """Make the dependency that reads a request's query parameters as a `model`."""

    def read(request: Request) -> ParamsT:
        try:
            return model.model_validate(parse(request.query_params.multi_items(), model), strict=False)
        except ValidationError as error:
            found = [dict(each, loc=("query", *each["loc"])) for each in error.errors()]
            raise RequestValidationError(found) from None

    return read


def parse(items: Iterable[tuple[str, str]], model: type[BaseModel]) -> Parsed:
    """Sort parameters: a list where the model has one, an object where the name has a key."""
    found: Parsed = {}
    for written, value in items:
        name, _, rest = written.partition("[")
        key = rest.removesuffix("]")
        if _is_list(model, name):
            values = found.setdefault(name, [])
            if isinstance(values, list):
                values.append(value)
        elif key:
            values = found.setdefault(name, {})
            if isinstance(values, dict):
                values[key] = value
        else:
            found[written] = value
    return found


def _is_list(model: type[BaseModel], name: str) -> bool:
    fields: Mapping[str, Any] = model.model_fields
    field = fields.get(name)
    return field is not None and any(get_origin(each) is list for each in _parts(field.annotation))


def _parts(annotation: object) -> Iterable[object]:
    if get_origin(annotation) in {Union, types.UnionType}:
        return [part for each in get_args(annotation) for part in _parts(each)]
    return [annotation]
