"""Base class of all config models, and the error that several fields cause together."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

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
