"""Answers of our routes as HTTP responses: whole, streamed, or an error of vLLM's."""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.sse_keep_alive import with_sse_keep_alive

_encoder = msgspec.json.Encoder()


def json_response(content: dict[str, Any]) -> Response:
    """An object as JSON."""
    return Response(_encoder.encode(content), media_type="application/json")


def error_response(error: ErrorResponse) -> Response:
    """vLLM's error."""
    return JSONResponse(error.model_dump(), status_code=error.error.code)


def stream_response(events: AsyncGenerator[str, None], raw_request: Request) -> Response:
    """A stream of events, with comments while it is silent if the engine's arguments ask."""
    args = getattr(raw_request.app.state, "args", None)
    interval_s = float(getattr(args, "sse_keep_alive_interval", 0))
    return StreamingResponse(
        with_sse_keep_alive(events, interval_s), media_type="text/event-stream"
    )
