"""`/v1/chat/completions` as OpenAI answers it."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import model_validator
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.sampling_params import SamplingParams

from deployments.engines.vllm.api.asked_answer import asked_answer
from deployments.engines.vllm.api.chat_answer import chat_object
from deployments.engines.vllm.api.chat_messages import check_messages
from deployments.engines.vllm.api.chat_serving import ChatServing
from deployments.engines.vllm.api.endpoint import post
from deployments.engines.vllm.api.field_checks import (
    CHAT,
    check_chat_features,
    check_completion,
    most,
)
from deployments.engines.vllm.api.grammar_fields import of_completion, record_grammar_fields
from deployments.engines.vllm.api.http_responses import (
    error_response,
    json_response,
    stream_response,
)
from deployments.engines.vllm.api.own_serving import own
from deployments.engines.vllm.api.sampling import adopt_top_p, sample_equally
from deployments.engines.vllm.api.tools import adopt_calls, adopt_tools

router = APIRouter()


class OpenAIChatRequest(ChatCompletionRequest):
    """OpenAI's chat request, in vLLM's terms."""

    answer_form: Any = None
    """What it asks for of the form of its answer (`Asked`); not a field of the body."""

    @model_validator(mode="before")
    @classmethod
    def adopt(cls, body: Any) -> Any:  # noqa: ANN401 - JSON
        """Check the body, and write it as vLLM understands it."""
        if not isinstance(body, dict):
            return body
        check_messages(body)
        check_completion(body, CHAT)
        check_chat_features(body)
        record_grammar_fields(of_completion(body))
        body = {**body, "messages": adopt_calls(body["messages"])}
        body["answer_form"] = asked_answer(body, adopt_tools(body))
        adopt_top_p(body)
        return body

    def to_sampling_params(
        self, max_tokens: int, default_sampling_params: Mapping[str, Any]
    ) -> SamplingParams:
        """vLLM's, where several answers may be greedy."""
        sample_equally(self, default_sampling_params)
        return super().to_sampling_params(max_tokens, dict(default_sampling_params))


@post(router, "/v1/chat/completions")
async def create_chat_completion(request: OpenAIChatRequest, raw_request: Request) -> Response:
    """Answer with a whole chat completion, or with a stream of its chunks."""
    serving = own(ChatServing, raw_request.app.state.openai_serving_chat)
    allowed = serving.model_config.max_logprobs
    if request.top_logprobs and allowed >= 0:
        most("top_logprobs", request.top_logprobs, allowed)
    answer = await serving.create_chat_completion(request, raw_request)
    if isinstance(answer, ErrorResponse):
        return error_response(answer)
    if isinstance(answer, ChatCompletionResponse):
        return json_response(chat_object(answer, request.answer_form))
    return stream_response(answer, raw_request)
