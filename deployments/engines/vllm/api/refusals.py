"""Refusals of fields in OpenAI's words."""

from collections.abc import Collection, Iterable
from typing import Any

from deployments.engines.vllm.api import invalid_values
from deployments.engines.vllm.api.refused_request import RefusedRequest


def missing(param: str) -> RefusedRequest:
    """A field is not there."""
    return RefusedRequest.of(invalid_values.missing(param))


def invalid_type(param: str, expected: str, value: object) -> RefusedRequest:
    """A field's value has another type than `expected`, as in "an object"."""
    return RefusedRequest.of(invalid_values.wrong_type(param, expected, value))


def invalid_value(param: str, value: object, supported: Iterable[str]) -> RefusedRequest:
    """A field has none of the supported values."""
    values = [f"'{each}'" for each in supported]
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
    empty = invalid_values.wrong_length(param, 1, 0, is_above=False, is_array=True)
    return RefusedRequest.of(empty)


def unsupported(param: str, reason: str) -> RefusedRequest:
    """A field asks for something that this server does not do; `reason` is a sentence."""
    message = f"Unsupported parameter: '{param}'. {reason}"
    return RefusedRequest(message, param=param, code="unsupported_parameter")


def check_object(param: str, value: object) -> None:
    """Refuse what is no JSON object."""
    if not isinstance(value, dict):
        raise invalid_type(param, "an object", value)


def check_list(param: str, value: object) -> None:
    """Refuse what is no JSON array."""
    if not isinstance(value, list):
        raise invalid_type(param, "an array", value)


def check_boolean(param: str, value: object) -> None:
    """Refuse what is no boolean."""
    if not isinstance(value, bool):
        raise invalid_type(param, "a boolean", value)


def check_minimum(param: str, value: Any, least: int) -> None:  # noqa: ANN401 - JSON
    """Refuse what is no integer, or too small a one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid_type(param, "an integer", value)
    if value < least:
        raise out_of_bounds(param, least, value, is_above=False, is_integer=True)


def check_value(param: str, value: object, supported: Collection[str]) -> None:
    """Refuse a value that is not supported."""
    if value not in supported:
        raise invalid_value(param, value, supported)
