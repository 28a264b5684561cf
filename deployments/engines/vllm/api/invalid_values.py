"""Refusals of a value in OpenAI's words, each with its code."""

import json
from collections.abc import Sequence

from gateway.errors.gateway_error import ErrorDetail

MAX_SHOWN = 100
"""Characters of a client's value that an error repeats."""
NUMBERS = (bool, int, float)
KINDS = ((bool, "a boolean"), (int, "an integer"), (float, "a decimal"), (str, "a string"))


def refused(message: str, param: str | None, code: str | None) -> ErrorDetail:
    """Any refusal."""
    return ErrorDetail(message, "invalid_request_error", param, code)


def missing(param: str) -> ErrorDetail:
    """A field that has to be there is not."""
    return refused(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def unknown(param: str) -> ErrorDetail:
    """A field that must not be there is."""
    return refused(f"Unknown parameter: '{param}'.", param, "unknown_parameter")


def wrong_type(param: str, expected: str, value: object) -> ErrorDetail:
    """A value of another type than `expected`, in words such as `an integer`."""
    message = f"Invalid type for '{param}': expected {expected}, but got {kind_of(value)} instead."
    return refused(message, param, "invalid_type")


def unsupported_value(param: str, value: object, supported: Sequence[str]) -> ErrorDetail:
    """A value that is none of those in `supported`, each of which is quoted already."""
    *first, last = supported or ["others"]
    values = f"{', '.join(first)} and {last}" if first else last
    message = f"Invalid value: {shown(value)}. Supported values are: {values}."
    return refused(message, param, "invalid_value")


def out_of_bounds(
    param: str, bound: float, value: object, *, is_above: bool, is_integer: bool | None = None
) -> ErrorDetail:
    """A number that is above the highest, or below the lowest, that is allowed.

    `is_integer`: whether the field holds integers; by default, whether the value is one.
    """
    if is_integer is None:
        is_integer = isinstance(value, int)
    kind = "integer" if is_integer else "decimal"
    side, sign = ("above maximum", "<=") if is_above else ("below minimum", ">=")
    message = (
        f"Invalid '{param}': {kind} {side} value. Expected a value {sign} {bound:g}, but got"
        f" {str(value)[:MAX_SHOWN]} instead."
    )
    code = "above_max" if is_above else "below_min"
    return refused(message, param, f"{kind}_{code}_value")


def wrong_length(
    param: str, bound: int, actual: int | None, *, is_above: bool, is_array: bool
) -> ErrorDetail:
    """An array or a string that is too long or too short."""
    kind = "array" if is_array else "string"
    if not is_above and actual == 0:
        found, fault, code = f"an empty {kind}", f"empty {kind}", f"empty_{kind}"
    else:
        length = "too many" if actual is None else str(actual)
        found = f"{_article(kind)} with length {length}"
        fault = f"{kind} {'too long' if is_above else 'too short'}"
        code = f"{kind}_{'above_max' if is_above else 'below_min'}_length"
    extreme = "maximum" if is_above else "minimum"
    message = (
        f"Invalid '{param}': {fault}. Expected {_article(kind)} with {extreme} length"
        f" {bound}, but got {found} instead."
    )
    return refused(message, param, code)


def shown(value: object) -> str:
    """A client's value as JSON has it; of long texts the beginning, of objects the type."""
    if isinstance(value, str):
        return f"'{value[:MAX_SHOWN]}'"
    if isinstance(value, dict | list):
        return kind_of(value)
    return json.dumps(value)[:MAX_SHOWN] if isinstance(value, NUMBERS) else kind_of(value)


def kind_of(value: object) -> str:
    """A value's type, as JSON calls it."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return next((name for kind, name in KINDS if isinstance(value, kind)), "something else")


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "array" else f"a {kind}"
