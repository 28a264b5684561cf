"""`/v1/responses` as OpenAI answers it, and `/v1/responses/input_tokens`."""

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from vllm.entrypoints.openai.responses.protocol import ResponsesResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from deployments.engines.vllm.api.accepted_stream import accepted
from deployments.engines.vllm.api.asked_response import AskedResponse
from deployments.engines.vllm.api.endpoint import post
from deployments.engines.vllm.api.http_responses import error_response
from deployments.engines.vllm.api.own_serving import own
from deployments.engines.vllm.api.prompt_length import UnlimitedRequest, fitted, prompt_tokens
from deployments.engines.vllm.api.responses_answer import response_object
from deployments.engines.vllm.api.responses_request import OpenAIResponsesRequest
from deployments.engines.vllm.api.responses_serving import ResponsesServing
from deployments.engines.vllm.api.responses_stream import ResponseEvents
from gateway.header_names import IGNORED_TOOLS

router = APIRouter()


@post(router, "/v1/responses")
async def create_responses(request: OpenAIResponsesRequest, raw_request: Request) -> Response:
    """Answer with a whole response, or with a stream of its events."""
    handler = own(ResponsesServing, raw_request.app.state.openai_serving_responses)
    if request.truncation == "auto":
        request = await fitted(handler, request)
    answer = await handler.create_responses(request, raw_request)
    if isinstance(answer, ErrorResponse):
        return error_response(answer)
    headers = _headers(request.asked)
    if isinstance(answer, ResponsesResponse):
        return JSONResponse(response_object(answer, request.asked), headers=headers)
    return await _stream(answer, request.asked, headers)


@post(router, "/v1/responses/input_tokens")
async def count_input_tokens(request: UnlimitedRequest, raw_request: Request) -> Response:
    """Answer with the number of tokens that the prompt of such a request has."""
    handler = raw_request.app.state.openai_serving_responses
    error = await handler._check_model(request)  # noqa: SLF001 - vLLM's
    tokens = await prompt_tokens(handler, request) if error is None else error
    if isinstance(tokens, ErrorResponse):
        return error_response(tokens)
    return JSONResponse({"object": "response.input_tokens", "input_tokens": tokens})


async def _stream(
    events: AsyncGenerator[Any, None], asked: AskedResponse, headers: dict[str, str]
) -> Response:
    written = ResponseEvents(asked).write(await accepted(events))
    return StreamingResponse(written, media_type="text/event-stream", headers=headers)


def _headers(asked: AskedResponse) -> dict[str, str]:
    return {IGNORED_TOOLS.decode(): ", ".join(asked.left_out)} if asked.left_out else {}
