"""Query parameters as OpenAI's client writes them: `name[]` for lists, `name[key]` for objects."""

from collections.abc import Callable, Iterable
from typing import TypeVar, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

ParamsT = TypeVar("ParamsT", bound=BaseModel)
Parsed = dict[str, str | list[str] | dict[str, str]]


def query(model: type[ParamsT]) -> Callable[[Request], ParamsT]:
    """Make the dependency that reads a request's query parameters as a `model`."""

    def read(request: Request) -> ParamsT:
        parsed = parse(request.query_params.multi_items(), model)
        try:
            return model.model_validate(parsed, strict=False)
        except ValidationError as error:
            found = [dict(each, loc=("query", *each["loc"])) for each in error.errors()]
            raise RequestValidationError(found) from None

    return read


def parse(items: Iterable[tuple[str, str]], model: type[BaseModel]) -> Parsed:
    """Sort parameters: a list where the model has one, an object where the name has a key."""
    found: Parsed = {}
    for written, value in items:
        name, _, rest = written.partition("[")
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is list:
            values = found.setdefault(name, [])
            if isinstance(values, list):
                values.append(value)
        elif key := rest.removesuffix("]"):
            pairs = found.setdefault(name, {})
            if isinstance(pairs, dict):
                pairs[key] = value
        else:
            found[written] = value
    return found
