"""vLLM's serving of Anthropic's messages, with Anthropic's answers and events."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from vllm.config import ModelConfig
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.generate.base.protocol import StreamOptions
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.outputs import RequestOutput
from vllm.renderers import TokenizeParams

from deployments.engines.vllm.api.asked_message import AskedMessage
from deployments.engines.vllm.api.chat_serving import ChatServing
from deployments.engines.vllm.api.messages_answer import message_object
from deployments.engines.vllm.api.messages_request import CountRequest, MessagesRequest
from deployments.engines.vllm.api.messages_stream import MessageEvents
from deployments.engines.vllm.api.unlimited_prompt import unlimited

Events = AsyncGenerator[str, None]


class CountedChat(ChatCompletionRequest):
    """A chat that is only counted, so that its prompt may be longer than the context."""

    def build_tok_params(self, model_config: ModelConfig) -> TokenizeParams:
        """How the prompt is made into tokens."""
        return unlimited(super().build_tok_params(model_config))


def chat_request(
    request: MessagesRequest | CountRequest, *, joins_system: bool, disabled_effort: str = "none"
) -> ChatCompletionRequest:
    """The chat that a request stands for.

    `joins_system`: system messages are joined to the first one, as the chat template demands.
    `disabled_effort`: the effort of a model that is not to think.
    """
    chat: ChatCompletionRequest = AnthropicServingMessages.to_chat_completion_request(
        request, merge_inline_system=joins_system, disabled_thinking_effort=disabled_effort
    )
    if request.asked.is_begun:
        chat.continue_final_message, chat.add_generation_prompt = True, False
    return chat


class MessagesServing(ChatServing, AnthropicServingMessages):
    """vLLM's serving for one request of ours (`own`)."""

    asked = AskedMessage()

    async def answer(
        self,
        request: MessagesRequest,
        raw_request: Any,  # noqa: ANN401 - Starlette's
    ) -> dict[str, Any] | Events | ErrorResponse:
        """A whole message, or the events of its stream."""
        self.asked = request.asked
        chat = await self._chat_of(request)
        if request.stream:
            chat.stream_options = StreamOptions(include_usage=True, continuous_usage_stats=False)
        answer = await self.create_chat_completion(chat, raw_request)
        if isinstance(answer, ChatCompletionResponse):
            return message_object(answer, request.asked)
        return answer

    async def count(self, request: CountRequest) -> int | ErrorResponse:
        """The tokens of a request's prompt."""
        chat = await self._chat_of(request)
        chat.__class__ = CountedChat
        rendered = await self.render_chat_request(chat)
        if isinstance(rendered, ErrorResponse):
            return rendered
        return sum(self._extract_prompt_len(each) for each in rendered[1])

    def chat_completion_stream_generator(
        self,
        request: Any,  # noqa: ANN401 - vLLM's
        result_generator: AsyncIterator[RequestOutput],
        *args: Any,  # noqa: ANN401 - vLLM's
        **named: Any,  # noqa: ANN401 - vLLM's
    ) -> Events:
        """Anthropic's events, of the chunks of vLLM's chat."""
        events = MessageEvents(self.asked, counts_cached=self.enable_prompt_tokens_details)
        counted = events.counted(result_generator)
        return events.write(self._chunks(events.chunk, request, counted, *args, **named))

    async def _chat_of(self, request: MessagesRequest | CountRequest) -> ChatCompletionRequest:
        """The chat that a request stands for."""
        effort = "none"
        if request.thinking is not None and request.thinking.type == "disabled":
            effort = await self._get_disabled_thinking_effort()
        chat = chat_request(request, joins_system=self._merge_inline_system, disabled_effort=effort)
        if not self._has_budgets:
            chat.thinking_token_budget = None  # a permission, which the model does not use
        return chat

    @property
    def _has_budgets(self) -> bool:
        """Whether the engine can end a model's thoughts."""
        config = self.engine_client.vllm_config.reasoning_config
        return config is not None and bool(config.enabled)
