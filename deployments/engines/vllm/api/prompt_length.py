"""How many tokens the prompt of a response has, and conversations shortened to fit a context.

Cost of fitting: a rendering of the prompt, and where it is too long, one more for each halving of
the number of items.
"""

from typing import Any

from vllm.config import ModelConfig
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.renderers import TokenizeParams

from deployments.engines.vllm.api.oldest_items import without_oldest
from deployments.engines.vllm.api.responses_request import OpenAIResponsesRequest
from deployments.engines.vllm.api.unlimited_prompt import unlimited

LEAST_ANSWER = 16
"""Tokens that are left for an answer of no given length."""


class UnlimitedRequest(OpenAIResponsesRequest):
    """A request that is only counted, so that its prompt may be longer than the context."""

    def build_tok_params(self, model_config: ModelConfig) -> TokenizeParams:
        """How the prompt is made into tokens."""
        return unlimited(super().build_tok_params(model_config))


async def prompt_tokens(handler: Any, request: UnlimitedRequest) -> int | ErrorResponse:  # noqa: ANN401
    """Tokens of a request's prompt; `handler` is vLLM's of the responses API."""
    rendered = await handler.online_renderer.render_responses(request)
    if isinstance(rendered, ErrorResponse):
        return rendered
    return int(handler._extract_prompt_len(rendered.engine_input))  # noqa: SLF001 - vLLM's


async def fitted(handler: Any, request: OpenAIResponsesRequest) -> OpenAIResponsesRequest:  # noqa: ANN401
    """The request without the oldest items of its input, as many as its context has no room for.

    Instructions stay, and so does the last item. A request that cannot be shortened enough is
    refused later, as one that asks for no truncation.
    """
    items = request.input
    if not isinstance(items, list):
        return _changed(request, items)
    context = handler.model_config.max_model_len
    room = context - min(request.max_output_tokens or LEAST_ANSWER, context // 2)
    counted = UnlimitedRequest.model_construct(**dict(request))
    least, most = 0, len(items)
    while least < most:
        middle = least + (most - least) // 2 if least else 0
        counted.input = without_oldest(items, middle)
        tokens = await prompt_tokens(handler, counted)
        if isinstance(tokens, ErrorResponse) or tokens <= room:
            most = middle
        else:
            least = middle + 1
    return _changed(request, without_oldest(items, least))


def _changed(request: OpenAIResponsesRequest, items: Any) -> OpenAIResponsesRequest:  # noqa: ANN401
    changed: OpenAIResponsesRequest = request.model_copy(
        update={"input": items, "truncation": "disabled"}
    )
    return changed
