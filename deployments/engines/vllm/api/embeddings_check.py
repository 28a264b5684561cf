"""Checks of requests for embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.engines.vllm.api.field_checks import Range, most, non_empty
from deployments.engines.vllm.api.refusals import check_value, invalid_type, missing
from deployments.engines.vllm.api.refused_request import RefusedRequest

FORMATS = ("float", "base64", "bytes", "bytes_only")
"""OpenAI's formats, and vLLM's."""
_DIMENSIONS = Range(1, None, is_integer=True)


def check_embeddings(body: Mapping[str, Any]) -> None:
    """Refuse what OpenAI would refuse.

    Raises:
        RefusedRequest: a field has a wrong type or value.
    """
    if body.get("encoding_format") is not None:
        check_value("encoding_format", body["encoding_format"], FORMATS)
    if body.get("dimensions") is not None:
        _DIMENSIONS.check("dimensions", body["dimensions"])
    if not isinstance(body.get("user"), str | None):
        raise invalid_type("user", "a string", body["user"])
    if "messages" in body:
        return
    if "input" not in body:
        raise missing("input")
    if not isinstance(body["input"], str | list):
        raise invalid_type("input", "a string or an array", body["input"])
    if isinstance(body["input"], list):
        non_empty("input", body["input"])


def check_dimensions(
    asked: int, size: int, supported: Sequence[int] | None, *, is_reducible: bool
) -> None:
    """Refuse dimensions that a model does not have; they are not its own `size`.

    `supported`: all that it has been trained for, if these are given one by one.
    `is_reducible`: whether it has been trained for fewer than `size` at all.

    Raises:
        RefusedRequest: the model's embeddings do not come in `asked` dimensions.
    """
    if not is_reducible:
        message = "This model does not support specifying dimensions."
        raise RefusedRequest(message, param="dimensions", code="unsupported_parameter")
    if supported and asked not in supported:
        values = ", ".join(str(each) for each in sorted({*supported, size}))
        message = f"Invalid value: {asked}. Supported values are: {values}."
        raise RefusedRequest(message, param="dimensions", code="invalid_value")
    most("dimensions", asked, size)
