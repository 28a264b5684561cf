"""vLLM's serving of responses, where calls that are cut off stay calls."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from openai.types.responses import ToolChoiceCustom, ToolChoiceFunction
from vllm.entrypoints.generate.base.protocol import (
    DeltaFunctionCall,
    DeltaMessage,
    DeltaToolCall,
    FunctionCall,
)
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.openai.responses.streaming_events import SimpleStreamingEventProcessor
from vllm.entrypoints.openai.responses.utils import build_response_output_items
from vllm.outputs import CompletionOutput

from deployments.engines.vllm.api.cut_calls import cut_calls, empty_call

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
        if final_output.finish_reason == "length" and parser is not None and _may_call(request):
            kwargs = self._effective_chat_template_kwargs(request)
            fresh = self._make_response_parser(request, tokenizer, kwargs)
            calls, delta = cut_calls(fresh, final_output, request)
            reasoning, content = (delta.reasoning, delta.content) if delta else (None, None)
            if not (calls or reasoning or content) and (name := _forced(request)):
                calls = [empty_call(name)]
            if calls:
                functions = [_with_id(call.function, call.id) for call in calls]
                items: list[Any] = build_response_output_items(
                    reasoning, content, functions, tools=request.tools
                )
                return items
        vllms: list[Any] = super()._make_response_output_items(
            request, final_output, tokenizer, parser
        )
        return vllms

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
        if context.response_parser is not None and _may_call(request):
            _leave_open(context)
        async for event in super()._process_simple_streaming_events(
            request, sampling_params, result_generator, context, *args, **named
        ):
            yield event
        name = _forced(request)
        if name and _is_cut(context) and not context.streamed_output_items:
            numbered = args[-1] if args else named["_increment_sequence_number_and_return"]
            processor = SimpleStreamingEventProcessor(tools=request.tools)
            for event in _begun(processor, name):
                yield numbered(event)
            context.streamed_output_items = processor.output_items


def _may_call(request: Request) -> bool:
    return bool(request.tools) and request.tool_choice != "none"


def _forced(request: Request) -> str | None:
    """Name of the tool that an answer must call; None if it is not known."""
    if isinstance(request.tool_choice, ToolChoiceFunction | ToolChoiceCustom):
        return str(request.tool_choice.name)
    is_known = request.tool_choice == "required" and len(request.tools) == 1
    return getattr(request.tools[0], "name", None) if is_known else None


def _with_id(function: FunctionCall, call_id: str) -> FunctionCall:
    function.id = call_id
    return function


def _is_cut(context: Any) -> bool:  # noqa: ANN401 - vLLM's
    output = context.last_output
    return output is not None and any(each.finish_reason == "length" for each in output.outputs)


def _leave_open(context: Any) -> None:  # noqa: ANN401 - vLLM's
    """Have the parser of a stream not complete the arguments of a call that is cut off."""
    parser = context.response_parser
    parse_delta = parser.parse_delta
    has_calls = False

    def parse(*args: Any, finished: bool, **named: Any) -> Any:  # noqa: ANN401 - vLLM's
        nonlocal has_calls
        is_left_open = has_calls and _is_cut(context)
        delta = parse_delta(*args, finished=finished and not is_left_open, **named)
        has_calls = has_calls or bool(delta and delta.tool_calls)
        return delta

    parser.parse_delta = parse


def _begun(processor: SimpleStreamingEventProcessor, name: str) -> list[Any]:
    """The events of a call that was cut off before its arguments."""
    call = empty_call(name)
    function = DeltaFunctionCall(name=name, arguments="")
    delta = DeltaToolCall(index=0, id=call.id, type="function", function=function)
    state, first = processor.resolve_target_state(DeltaMessage(tool_calls=[delta]))
    return [*processor.open(state, first), *processor.close_current()]
