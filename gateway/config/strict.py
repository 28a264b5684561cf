"""What all parts of a configuration have in common."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

Flaw = tuple[tuple[str | int, ...], str]
"""Where in a part something is wrong, and what."""


class Strict(BaseModel):
    """Frozen, takes no field it does not know, and turns no value into another type."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def conflict(message: str, *at: int | str) -> PydanticCustomError:
    """Make the error of several fields together, reported at the one named by `at`."""
    return conflicts([(at, message)])


def conflicts(flaws: Sequence[Flaw]) -> PydanticCustomError:
    """Make the error of all that several fields together have wrong."""
    message = "; ".join(text for _, text in flaws)
    return PydanticCustomError("conflict", "{message}", {"message": message, "flaws": flaws})


def check_name(name: str) -> str:
    """A name that clients can write.

    Raises:
        ValueError: it is none.
    """
    if not name or not name.isprintable() or any(c.isspace() for c in name):
        raise ValueError("must be non-empty, without spaces or control characters")
    return name
