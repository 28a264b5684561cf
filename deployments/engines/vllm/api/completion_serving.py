"""vLLM's serving of text completions, with OpenAI's chunks, and answers of no tokens."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi.datastructures import Headers
from vllm.entrypoints.openai.completion.protocol import CompletionResponse
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.outputs import RequestOutput

from deployments.engines.vllm.api.chunks import ChunkPart, ChunkWriter
from deployments.engines.vllm.api.rebound import rebound

Request = Any
"""Our `OpenAICompletionRequest`, whose module imports this one."""


class CompletionServing(OpenAIServingCompletion):
    """vLLM's serving of text completions for requests of ours."""

    async def _get_trace_headers(self, headers: Headers) -> Mapping[str, str] | None:
        """vLLM's; it is asked for them for each prompt, and others get their turn in between."""
        await asyncio.sleep(0)
        found: Mapping[str, str] | None = await super()._get_trace_headers(headers)
        return found

    def completion_stream_generator(
        self,
        request: Request,
        engine_inputs: Any,  # noqa: ANN401 - vLLM's
        result_generator: AsyncIterator[tuple[int, RequestOutput]],
        *args: Any,  # noqa: ANN401 - vLLM's
        **named: Any,  # noqa: ANN401 - vLLM's
    ) -> AsyncGenerator[str, None]:
        """vLLM's events, with chunks of ours."""
        names = {
            "CompletionStreamResponse": ChunkWriter(request.answer_form),
            "CompletionResponseStreamChoice": ChunkPart,
        }
        vllms = OpenAIServingCompletion.completion_stream_generator
        if request.max_tokens == 0:
            result_generator = _without_tokens(result_generator)
        events: AsyncGenerator[str, None] = rebound(vllms, names)(
            self, request, engine_inputs, result_generator, *args, **named
        )
        return events

    def request_output_to_completion_response(
        self,
        final_res_batch: list[RequestOutput],
        request: Request,
        *args: Any,  # noqa: ANN401 - vLLM's
        **named: Any,  # noqa: ANN401 - vLLM's
    ) -> CompletionResponse:
        """vLLM's answer, without the token that no request of none has asked for."""
        if request.max_tokens == 0:
            for result in final_res_batch:
                _remove_tokens(result.outputs)
        return super().request_output_to_completion_response(
            final_res_batch, request, *args, **named
        )


class _NoTokens(tuple[int, ...]):
    """No tokens, which vLLM's generator does not take for a prompt that is still computed."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


async def _without_tokens(
    results: AsyncIterator[tuple[int, RequestOutput]],
) -> AsyncIterator[tuple[int, RequestOutput]]:
    async for place, result in results:
        _remove_tokens(result.outputs)
        yield place, result


def _remove_tokens(outputs: Sequence[Any]) -> None:
    for output in outputs:
        output.text, output.token_ids, output.stop_reason = "", _NoTokens(), None
        output.logprobs = None if output.logprobs is None else []
        output.finish_reason = output.finish_reason and "length"
