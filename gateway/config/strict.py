"""Base class of all config models, and the error that several fields cause together."""

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

MAX_SHOWN = 1000
"""Characters of a wrong value that a message repeats."""

ConfigPath = tuple[int | str, ...]
"""Keys and positions that lead to a value in a document."""


class FieldError(NamedTuple):
    """A mistake in a config: the path to it, and what is wrong."""

    path: ConfigPath
    message: str


class Strict(BaseModel):
    """Frozen model that accepts no unknown field and converts no value to another type."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def field_error(message: str, *path: int | str) -> PydanticCustomError:
    """Make the validation error for a combination of fields, reported at one of them."""
    return field_errors([FieldError(path, message)])


def field_errors(errors: Sequence[FieldError]) -> PydanticCustomError:
    """Make one validation error of several; `config_errors` takes them apart again."""
    message = "; ".join(error.message for error in errors)
    return PydanticCustomError("field_errors", "{message}", {"message": message, "errors": errors})


def suggestion(name: object, known: Iterable[str], *, shows_all: bool = True) -> str:
    """End of an error line: the nearest of the known names; if none is near, all or nothing."""
    by_lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    if close:
        return f", did you mean `{by_lower[close[0]]}`?"
    return f"; known: {', '.join(by_lower.values())}" if shows_all else ""


def format_value(value: object) -> str:
    """Value as YAML writes it, on one line; for a collection, only its kind."""
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str() if len(value) > MAX_SHOWN:
            return f"{json.dumps(value[:MAX_SHOWN], ensure_ascii=False)}..."
        case int() if abs(value) >= 10**MAX_SHOWN:
            return f"a number of more than {MAX_SHOWN} digits"
        case None | bool() | int() | float() | str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)
