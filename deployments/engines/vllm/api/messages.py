"""`/v1/messages` and `/v1/messages/count_tokens` as Anthropic answers them."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from deployments.engines.vllm.api.endpoint import post
from deployments.engines.vllm.api.http_responses import (
    error_response,
    json_response,
    stream_response,
)
from deployments.engines.vllm.api.messages_request import CountRequest, MessagesRequest
from deployments.engines.vllm.api.messages_serving import MessagesServing
from deployments.engines.vllm.api.own_serving import own

router = APIRouter()


@post(router, "/v1/messages")
async def create_message(request: MessagesRequest, raw_request: Request) -> Response:
    """Answer with a whole message, or with a stream of its events."""
    answer = await _serving(raw_request).answer(request, raw_request)
    if isinstance(answer, ErrorResponse):
        return error_response(answer)
    if isinstance(answer, dict):
        return json_response(answer)
    return stream_response(answer, raw_request)


@post(router, "/v1/messages/count_tokens")
async def count_tokens(request: CountRequest, raw_request: Request) -> Response:
    """Answer with the number of tokens that the prompt of such a request has."""
    tokens = await _serving(raw_request).count(request)
    if isinstance(tokens, ErrorResponse):
        return error_response(tokens)
    return json_response({"input_tokens": tokens})


def _serving(raw_request: Request) -> MessagesServing:
    return own(MessagesServing, raw_request.app.state.anthropic_serving_messages)
