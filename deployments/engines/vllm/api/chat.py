"""`/v1/chat/completions` as OpenAI answers it."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from deployments.engines.vllm.api.endpoint import post

router = APIRouter()


class OpenAIChatRequest(ChatCompletionRequest):
    """OpenAI's chat request, in vLLM's terms."""


@post(router, "/v1/chat/completions")
async def create_chat_completion(request: OpenAIChatRequest, raw_request: Request) -> Response:
    """Answer with a whole chat completion, or with a stream of its chunks."""
    handler = raw_request.app.state.openai_serving_chat
    answer = await handler.create_chat_completion(request, raw_request)
    if isinstance(answer, ErrorResponse):
        return JSONResponse(answer.model_dump(), status_code=answer.error.code)
    if isinstance(answer, ChatCompletionResponse):
        return JSONResponse(answer.model_dump())
    return StreamingResponse(answer, media_type="text/event-stream")
