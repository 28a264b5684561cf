"""What our serving of completions relies on in the installed vLLM."""

from tests.contract.with_vllm import run_script

SCRIPT = """
import asyncio
from types import SimpleNamespace
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.pooling.base.serving import PoolingBaseServing
from vllm.entrypoints.pooling.embed.serving import ServingEmbedding
from vllm.parser.abstract_parser import DelegatingParser, Parser
from vllm.renderers.chat_utils import MM_PARSER_MAP, make_tool_call_id
from deployments.engines.vllm.api.chat_serving import _Stream
from deployments.engines.vllm.api.chunks import ChunkPart
from deployments.engines.vllm.api.cut_calls import leave_open
from deployments.engines.vllm.api.chat_messages import PARTS
from deployments.engines.vllm.api.rebound import rebound
from deployments.engines.vllm.api.tool_calls import VLLM_CALL
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponseStreamChoice
from vllm.entrypoints.openai.completion.protocol import CompletionResponseStreamChoice

CHAT = ("ChatCompletionStreamResponse", "ChatCompletionResponseStreamChoice", "DeltaMessage",
        "maybe_filter_parallel_tool_calls")
TEXT = ("CompletionStreamResponse", "CompletionResponseStreamChoice")
rebound(OpenAIServingChat.chat_completion_stream_generator, dict.fromkeys(CHAT))
rebound(OpenAIServingCompletion.completion_stream_generator, dict.fromkeys(TEXT))
assert OpenAIServingCompletion.request_output_to_completion_response
assert ServingEmbedding._openai_json_response
assert "_postprocessing_async" in PoolingBaseServing.__init__.__code__.co_names
assert OpenAIServingChat._make_parser
assert OpenAIServingResponses._make_response_output_items
assert OpenAIServingResponses._make_response_parser
assert OpenAIServingResponses._process_simple_streaming_events
assert isinstance(Parser.tool_parser, property)
assert "get_remaining_unstreamed_args" in (
    DelegatingParser._append_unstreamed_tool_args.__code__.co_names
)
assert set(MM_PARSER_MAP) == set(PARTS), set(MM_PARSER_MAP) ^ set(PARTS)
assert make_tool_call_id().startswith(VLLM_CALL)
fields = ChunkPart.__slots__
for model in (ChatCompletionResponseStreamChoice, CompletionResponseStreamChoice):
    assert set(model.model_fields) <= set(fields), set(model.model_fields) - set(fields)


class OpenCall:
    tool_parser = SimpleNamespace(get_remaining_unstreamed_args=lambda: "}")

    def parse_delta(self, finished):
        return None


async def cut_stream():
    async def results():
        yield SimpleNamespace(outputs=[SimpleNamespace(index=1, finish_reason="length")])

    stream = _Stream(results())
    whole, cut = stream.next_choice(), stream.next_choice()
    async for _ in aiter(stream):
        pass
    assert cut() and not whole()
    return cut


parser = OpenCall()
leave_open(parser, asyncio.run(cut_stream()), "f")
assert parser.parse_delta(finished=False) is None
(call,) = parser.parse_delta(finished=True).tool_calls
assert (call.function.name, call.function.arguments) == ("f", "")
assert parser.tool_parser.get_remaining_unstreamed_args() == ""
print("as expected")
"""


def test_completions_have_what_we_replace() -> None:
    """The generators use the names that stand for our chunks, and choices have no other field."""
    result = run_script(SCRIPT)
    assert result.stdout.splitlines()[-1:] == ["as expected"], result.stderr[-2000:]
