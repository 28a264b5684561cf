"""Checks of requests for embeddings."""

from collections.abc import Mapping
from typing import Any

from deployments.engines.vllm.api.field_checks import Range, non_empty
from deployments.engines.vllm.api.refusals import check_value, invalid_type, missing

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
        raise invalid_type("user", "a string")
    if "messages" in body:
        return
    if "input" not in body:
        raise missing("input")
    if not isinstance(body["input"], str | list):
        raise invalid_type("input", "a string or an array")
    if isinstance(body["input"], list):
        non_empty("input", body["input"])
