"""How our routes are registered: as vLLM registers its own."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from vllm.entrypoints.serve.utils.api_utils import (
    load_aware_call,
    validate_json_request,
    with_cancellation,
)

_E = TypeVar("_E", bound=Callable[..., Awaitable[Response]])


def post(router: APIRouter, path: str) -> Callable[[_E], _E]:
    """Register an endpoint that takes JSON, and is cancelled when its client leaves.

    Its parameters must be called `request` (the body) and `raw_request`, as vLLM expects.
    """

    def register(endpoint: _E) -> _E:
        cancelled = with_cancellation(load_aware_call(endpoint))
        router.post(path, dependencies=[Depends(validate_json_request)])(cancelled)
        return endpoint

    return register
