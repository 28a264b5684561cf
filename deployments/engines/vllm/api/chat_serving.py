"""vLLM's serving of chats, with OpenAI's chunks, and calls that stay calls where they are cut."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from itertools import count
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionNamedToolChoiceParam,
    ChatCompletionResponse,
)
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.outputs import RequestOutput

from deployments.engines.vllm.api.chunks import ChunkPart, ChunkWriter, DeltaPart
from deployments.engines.vllm.api.cut_calls import cut_answer, leave_open
from deployments.engines.vllm.api.own_serving import own
from deployments.engines.vllm.api.rebound import rebound

Request = Any
"""Our `OpenAIChatRequest`, whose module imports this one."""


class ChatServing(OpenAIServingChat):
    """vLLM's serving of chats for requests of ours."""

    _parsed: "_Stream | None" = None
    """The stream whose parsers vLLM makes."""

    def chat_completion_stream_generator(
        self,
        request: Request,
        result_generator: AsyncIterator[RequestOutput],
        *args: Any,  # noqa: ANN401 - vLLM's
        **named: Any,  # noqa: ANN401 - vLLM's
    ) -> AsyncGenerator[str, None]:
        """vLLM's events, with chunks of ours; of a call that is cut off, what it says."""
        chunk = ChunkWriter(request.answer_form)
        return self._chunks(chunk, request, result_generator, *args, **named)

    def _chunks(
        self,
        chunk: Callable[..., object],
        request: Request,
        results: AsyncIterator[RequestOutput],
        *args: Any,  # noqa: ANN401 - vLLM's
        **named: Any,  # noqa: ANN401 - vLLM's
    ) -> AsyncGenerator[str, None]:
        """vLLM's events; calls that are cut off stay open. `chunk`: what makes a chunk of parts."""
        names = {
            "ChatCompletionStreamResponse": chunk,
            "ChatCompletionResponseStreamChoice": ChunkPart,
            "DeltaMessage": DeltaPart,
            "maybe_filter_parallel_tool_calls": only_one_call,
        }
        serving = self
        if self._may_call(request):
            stream = _Stream(results)
            serving, results = own(type(self), self), aiter(stream)
            serving._parsed = stream  # noqa: SLF001 - of this class
        vllms = OpenAIServingChat.chat_completion_stream_generator
        events: AsyncGenerator[str, None] = rebound(vllms, names)(
            serving, request, results, *args, **named
        )
        return events

    def _make_parser(self, request: Request, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - vLLM's
        parser = super()._make_parser(request, *args, **named)
        if self._parsed is not None and parser is not None:
            leave_open(parser, self._parsed.next_choice(), _forced(request))
        return parser

    async def chat_completion_full_generator(
        self,
        request: Request,
        result_generator: AsyncIterator[RequestOutput],
        *args: Any,  # noqa: ANN401 - vLLM's
        **named: Any,  # noqa: ANN401 - vLLM's
    ) -> ErrorResponse | ChatCompletionResponse:
        """vLLM's answer; a call that is cut off is still a call."""
        results = _LastOf(result_generator)
        answer = await super().chat_completion_full_generator(request, results, *args, **named)
        if isinstance(answer, ChatCompletionResponse) and self._may_call(request):
            for choice, output in zip(answer.choices, results.outputs, strict=False):
                if choice.finish_reason == "length":
                    self._add_cut_calls(choice.message, output, request)
        return answer

    def _may_call(self, request: Request) -> bool:
        return bool(request.tools) and request.tool_choice != "none" and bool(self.parser_cls)

    def _add_cut_calls(self, message: Any, output: Any, request: Request) -> None:  # noqa: ANN401
        """Read an answer as a stream's: its calls, and no text that a stream would not have."""
        kwargs = self._effective_chat_template_kwargs(request)
        parser = super()._make_parser(request, self.renderer.tokenizer, kwargs)
        calls, rest = cut_answer(parser, output, request, _forced(request))
        if calls:
            message.tool_calls = calls
        if calls or not (rest.content or rest.reasoning):
            message.content = rest.content or ("" if not calls else None)


class _Stream:
    """Results of a stream, which say which of its choices are cut off."""

    def __init__(self, results: AsyncIterator[RequestOutput]) -> None:
        self._results = results
        self._choices = count()
        self._cut: set[int] = set()

    def next_choice(self) -> Callable[[], bool]:
        """Whether a choice is cut off; the choices one after another."""
        choice = next(self._choices)
        return lambda: choice in self._cut

    async def __aiter__(self) -> AsyncIterator[RequestOutput]:
        async for result in self._results:
            self._cut |= {each.index for each in result.outputs if each.finish_reason == "length"}
            yield result


class _LastOf:
    """Results, of which the last is kept."""

    def __init__(self, results: AsyncIterator[RequestOutput]) -> None:
        self._results = results
        self.outputs: Sequence[Any] = ()

    async def __aiter__(self) -> AsyncIterator[RequestOutput]:
        async for result in self._results:
            self.outputs = result.outputs
            yield result


def _forced(request: Request) -> str | None:
    """Name of the tool that an answer must call; None if it is not known."""
    if isinstance(request.tool_choice, ChatCompletionNamedToolChoiceParam):
        return str(request.tool_choice.function.name)
    is_known = request.tool_choice == "required" and len(request.tools) == 1
    return str(request.tools[0].function.name) if is_known else None


def only_one_call(choice: ChunkPart, request: Request) -> ChunkPart:
    """vLLM's filter of calls beside the first, for choices of ours."""
    if request.parallel_tool_calls is False and choice.delta.tool_calls:
        choice.delta.tool_calls = [call for call in choice.delta.tool_calls if call.index == 0]
    return choice
