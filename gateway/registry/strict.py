"""What all parts of a configuration have in common."""

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Frozen, takes no field it does not know, and turns no value into another type."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def conflict(message: str, *at: str) -> PydanticCustomError:
    """Make the error of several fields together, reported at the one named by `at`."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "at": at})


def check_name(name: str) -> str:
    """A name that clients can write.

    Raises:
        ValueError: it is none.
    """
    if not name or not name.isprintable() or any(c.isspace() for c in name):
        raise ValueError("must be non-empty, without spaces or control characters")
    return name
