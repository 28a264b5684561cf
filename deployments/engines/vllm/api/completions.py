"""`/v1/completions` as OpenAI answers it."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import model_validator
from vllm.entrypoints.openai.completion.protocol import CompletionRequest, CompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.sampling_params import SamplingParams

from deployments.engines.vllm.api.asked_answer import asked_answer
from deployments.engines.vllm.api.chat_answer import text_object
from deployments.engines.vllm.api.completion_serving import CompletionServing
from deployments.engines.vllm.api.endpoint import post
from deployments.engines.vllm.api.field_checks import TEXT, check_best_of, check_completion, most
from deployments.engines.vllm.api.grammar_fields import of_completion, record_grammar_fields
from deployments.engines.vllm.api.http_responses import (
    error_response,
    json_response,
    stream_response,
)
from deployments.engines.vllm.api.own_serving import own
from deployments.engines.vllm.api.refusals import invalid_type, missing
from deployments.engines.vllm.api.sampling import adopt_top_p, sample_equally
from deployments.engines.vllm.api.tools import ToolForm

router = APIRouter()


class OpenAICompletionRequest(CompletionRequest):
    """OpenAI's request for a text completion, in vLLM's terms."""

    answer_form: Any = None
    """What it asks for of the form of its answer (`Asked`); not a field of the body."""

    @model_validator(mode="before")
    @classmethod
    def adopt(cls, body: Any) -> Any:  # noqa: ANN401 - JSON
        """Check the body, and write it as vLLM understands it."""
        if not isinstance(body, dict):
            return body
        if "prompt" not in body and body.get("prompt_embeds") is None:
            raise missing("prompt")
        if not isinstance(body.get("prompt"), str | list | None):
            raise invalid_type("prompt", "a string or an array", body["prompt"])
        check_completion(body, TEXT)
        check_best_of(body)
        record_grammar_fields(of_completion(body))
        body = {**body, "answer_form": asked_answer(body, ToolForm())}
        adopt_top_p(body)
        return body

    def to_sampling_params(
        self, max_tokens: int, default_sampling_params: Mapping[str, Any] | None = None
    ) -> SamplingParams:
        """vLLM's, where several answers may be greedy, and none may have no tokens."""
        defaults = dict(default_sampling_params or {})
        sample_equally(self, defaults)
        return super().to_sampling_params(max_tokens or 1, defaults)


@post(router, "/v1/completions")
async def create_completion(request: OpenAICompletionRequest, raw_request: Request) -> Response:
    """Answer with a whole text completion, or with a stream of its chunks."""
    serving = own(CompletionServing, raw_request.app.state.openai_serving_completion)
    allowed = serving.model_config.max_logprobs
    if request.logprobs and allowed >= 0:
        most("logprobs", request.logprobs, allowed)
    answer = await serving.create_completion(request, raw_request)
    if isinstance(answer, ErrorResponse):
        return error_response(answer)
    if isinstance(answer, CompletionResponse):
        return json_response(text_object(answer, request.answer_form))
    return stream_response(answer, raw_request)
