"""A request that this gateway refuses before vLLM validates it."""

from typing import Any

from fastapi.responses import JSONResponse


class RefusedRequest(Exception):
    """A field that cannot be obeyed; answered 400 in OpenAI's envelope.

    `param`: the field as OpenAI writes it, as in `tools[0].type`. `code`: one of OpenAI's.
    """

    def __init__(self, message: str, *, param: str | None, code: str) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


async def answer_refusal(_: Any, error: Any) -> JSONResponse:  # noqa: ANN401 - Starlette's
    """The answer to a refused request, as an exception handler of vLLM's application."""
    content = {
        "message": error.message,
        "type": "invalid_request_error",
        "param": error.param,
        "code": error.code,
    }
    return JSONResponse({"error": content}, status_code=400)
