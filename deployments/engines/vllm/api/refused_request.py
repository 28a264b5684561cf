"""A request that this gateway refuses before vLLM validates it."""

from typing import Any, Self

import msgspec
from fastapi.responses import Response

from deployments.engines.vllm.api.invalid_values import refused
from gateway.errors.gateway_error import ErrorBody, ErrorDetail


class RefusedRequest(Exception):
    """A field that cannot be obeyed; answered 400 in OpenAI's envelope.

    `param`: the field as OpenAI writes it, as in `tools[0].type`. `code`: one of OpenAI's.
    """

    def __init__(self, message: str, *, param: str | None, code: str) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code

    @classmethod
    def of(cls, detail: ErrorDetail) -> Self:
        """The refusal for one of `invalid_values`."""
        return cls(detail.message, param=detail.param, code=str(detail.code))


async def answer_refusal(_: Any, error: Any) -> Response:  # noqa: ANN401 - Starlette's
    """The answer to a refused request, as an exception handler of vLLM's application."""
    return refusal_response(refused(error.message, error.param, error.code))


def refusal_response(detail: ErrorDetail) -> Response:
    """The answer to a request that is the client's mistake."""
    body = msgspec.json.encode(ErrorBody(detail))
    return Response(body, status_code=400, media_type="application/json")
