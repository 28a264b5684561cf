"""vLLM's serving of responses, where calls that are cut off stay calls."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from openai.types.responses import ToolChoiceCustom, ToolChoiceFunction
from vllm.entrypoints.generate.base.protocol import FunctionCall, ToolCall
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.openai.responses.utils import build_response_output_items
from vllm.outputs import CompletionOutput

from deployments.engines.vllm.api.cut_calls import cut_answer, leave_open

Request = Any
"""Our `OpenAIResponsesRequest`, in vLLM's terms."""


class ResponsesServing(OpenAIServingResponses):
    """vLLM's serving of responses for requests of ours."""

    def _make_response_output_items(
        self,
        request: Request,
        final_output: CompletionOutput,
        tokenizer: Any,  # noqa: ANN401 - vLLM's
        parser: Any = None,  # noqa: ANN401 - vLLM's
    ) -> list[Any]:
        """vLLM's items of a whole answer; a call that is cut off is still a call."""
        vllms: list[Any] = super()._make_response_output_items(
            request, final_output, tokenizer, parser
        )
        if parser is None or final_output.finish_reason != "length" or not _may_call(request):
            return vllms
        kwargs = self._effective_chat_template_kwargs(request)
        fresh = self._make_response_parser(request, tokenizer, kwargs)
        calls, rest = cut_answer(fresh, final_output, request, _forced(request))
        if not calls and (rest.content or rest.reasoning):
            return vllms
        items: list[Any] = build_response_output_items(
            rest.reasoning,
            rest.content,
            [_function(call) for call in calls],
            tools=request.tools,
        )
        return items

    async def _process_simple_streaming_events(
        self,
        request: Request,
        sampling_params: Any,  # noqa: ANN401 - vLLM's
        result_generator: AsyncIterator[Any],
        context: Any,  # noqa: ANN401 - vLLM's
        *args: Any,  # noqa: ANN401 - vLLM's
        **named: Any,  # noqa: ANN401 - vLLM's
    ) -> AsyncGenerator[Any, None]:
        """vLLM's events; of a call that is cut off, what it says and no more."""

        def is_cut() -> bool:
            return bool(context.last_output.outputs[0].finish_reason == "length")

        if context.response_parser is not None and _may_call(request):
            leave_open(context.response_parser, is_cut, _forced(request))
        async for event in super()._process_simple_streaming_events(
            request, sampling_params, result_generator, context, *args, **named
        ):
            yield event


def _may_call(request: Request) -> bool:
    return bool(request.tools) and request.tool_choice != "none"


def _forced(request: Request) -> str | None:
    """Name of the tool that an answer must call; None if it is not known."""
    if isinstance(request.tool_choice, ToolChoiceFunction | ToolChoiceCustom):
        return str(request.tool_choice.name)
    is_known = request.tool_choice == "required" and len(request.tools) == 1
    return getattr(request.tools[0], "name", None) if is_known else None


def _function(call: ToolCall) -> FunctionCall:
    """A call with its id, as vLLM makes items of it."""
    function = call.function
    function.id = call.id
    return function
