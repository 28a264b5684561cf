"""Refusals of fields in OpenAI's words."""

from collections.abc import Collection, Iterable
from typing import Any

from deployments.engines.vllm.api import invalid_values
from deployments.engines.vllm.api.refused_request import RefusedRequest


def missing(param: str) -> RefusedRequest:
    """A field is not there."""
    return RefusedRequest.of(invalid_values.missing(param))


def invalid_type(param: str, expected: str) -> RefusedRequest:
    """A field has another type than `expected`, as in "an object"."""
    message = f"Invalid type for '{param}': expected {expected}."
    return RefusedRequest(message, param=param, code="invalid_type")


def invalid_value(param: str, value: object, supported: Iterable[str]) -> RefusedRequest:
    """A field has none of the supported values."""
    values = ", ".join(f"'{each}'" for each in supported)
    return RefusedRequest.of(invalid_values.unsupported_value(param, value, values))


def out_of_bounds(
    param: str, bound: float, value: float, *, is_above: bool, is_integer: bool
) -> RefusedRequest:
    """A number is above the highest, or below the lowest, that its field may have."""
    return RefusedRequest.of(
        invalid_values.out_of_bounds(param, bound, value, is_above=is_above, is_integer=is_integer)
    )


def empty_array(param: str) -> RefusedRequest:
    """An array has nothing in it."""
    message = (
        f"Invalid '{param}': empty array. Expected an array with minimum length 1, but got an"
        " empty array instead."
    )
    return RefusedRequest(message, param=param, code="empty_array")


def unsupported(param: str, reason: str) -> RefusedRequest:
    """A field asks for something that this server does not do; `reason` is a sentence."""
    message = f"Unsupported parameter: '{param}'. {reason}"
    return RefusedRequest(message, param=param, code="unsupported_parameter")


def check_object(param: str, value: object) -> None:
    """Refuse what is no JSON object."""
    if not isinstance(value, dict):
        raise invalid_type(param, "an object")


def check_list(param: str, value: object) -> None:
    """Refuse what is no JSON array."""
    if not isinstance(value, list):
        raise invalid_type(param, "an array")


def check_boolean(param: str, value: object) -> None:
    """Refuse what is no boolean."""
    if not isinstance(value, bool):
        raise invalid_type(param, "a boolean")


def check_minimum(param: str, value: Any, least: int) -> None:  # noqa: ANN401 - JSON
    """Refuse what is no integer, or too small a one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid_type(param, "an integer")
    if value < least:
        raise out_of_bounds(param, least, value, is_above=False, is_integer=True)


def check_value(param: str, value: object, supported: Collection[str]) -> None:
    """Refuse a value that is not supported."""
    if value not in supported:
        raise invalid_value(param, value, supported)
