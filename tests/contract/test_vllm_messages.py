"""What our routes in front of vLLM's rely on in the installed vLLM, without an engine.

The tables are compared with the code, as those of `test_private_names.py`.
"""

import importlib.util
import json
from typing import Any

import pytest

from tests.contract.test_private_names import VLLM, inherited, underscored
from tests.contract.with_vllm import run_script

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")

CHAT = "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat"
MESSAGES = "vllm.entrypoints.anthropic.serving:AnthropicServingMessages"
COMPLETION = "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion"
RESPONSES = "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses"
CHAT_REQUEST = "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest"
COMPLETION_REQUEST = "vllm.entrypoints.openai.completion.protocol:CompletionRequest"
RESPONSES_REQUEST = "vllm.entrypoints.openai.responses.protocol:ResponsesRequest"

INHERITED = {
    "ChatServing": (
        CHAT,
        {
            *("_effective_chat_template_kwargs", "_make_parser", "chat_completion_full_generator"),
            *("parser_cls", "renderer"),
        },
    ),
    "CompletionServing": (
        COMPLETION,
        {"_get_trace_headers", "request_output_to_completion_response"},
    ),
    "CountedChat": (CHAT_REQUEST, {"build_tok_params"}),
    "EmbeddingServing": (
        "vllm.entrypoints.pooling.embed.serving:ServingEmbedding",
        {"_executor", "_postprocessing", "json_response_cls"},
    ),
    "MessagesServing": (
        MESSAGES,
        {
            *("_extract_prompt_len", "_get_disabled_thinking_effort", "_merge_inline_system"),
            *("create_chat_completion", "enable_prompt_tokens_details", "engine_client"),
            "render_chat_request",
        },
    ),
    "OpenAIChatRequest": (CHAT_REQUEST, {"to_sampling_params"}),
    "OpenAICompletionRequest": (COMPLETION_REQUEST, {"to_sampling_params"}),
    "ResponsesServing": (
        RESPONSES,
        {
            *("_effective_chat_template_kwargs", "_make_response_output_items"),
            *("_make_response_parser", "_process_simple_streaming_events"),
        },
    ),
    "UnlimitedRequest": (RESPONSES_REQUEST, {"build_tok_params"}),
}
"""Attributes that our subclasses use of vLLM's classes, by `self` or by `super()`."""
UNDERSCORED = {"_check_model": RESPONSES, "_extract_prompt_len": RESPONSES}
"""Underscored attributes of other objects, and what has them."""
OF_OURS = {"_chunks", "_asked", "_parsed", "asked"}
"""Attributes in the code that are not vLLM's."""
EXCEPTIONS = {"RefusedRequest"}
"""Subclasses of Python's own classes."""
ATTRIBUTES = {
    CHAT: {"enable_prompt_tokens_details", "model_config", "online_renderer"},
    CHAT_REQUEST: {
        *("add_generation_prompt", "continue_final_message", "parallel_tool_calls", "stream"),
        *("stream_options", "thinking_token_budget", "tool_choice", "tools"),
    },
    RESPONSES: {"create_responses", "model_config", "online_renderer"},
    RESPONSES_REQUEST: {"input", "max_output_tokens", "truncation"},
    "vllm.config:VllmConfig": {"reasoning_config"},
    "vllm.config.reasoning:ReasoningConfig": {"enabled"},
    "vllm.outputs:RequestOutput": {
        *("encoder_prompt_token_ids", "num_cache_creation_tokens", "num_cached_tokens"),
        *("outputs", "prompt_token_ids"),
    },
    "vllm.renderers.online_renderer:OnlineRenderer": {"render_chat", "render_responses"},
    "vllm.entrypoints.serve.engine.protocol:UsageInfo": {
        *("completion_tokens", "completion_tokens_details", "prompt_tokens"),
        "prompt_tokens_details",
    },
    "vllm.entrypoints.serve.engine.protocol:PromptTokenUsageInfo": {
        *("cached_tokens", "created_cache_tokens"),
    },
    "vllm.entrypoints.serve.engine.protocol:CompletionTokenUsageInfo": {"reasoning_tokens"},
    "vllm.entrypoints.generate.base.protocol:DeltaMessage": {
        *("content", "reasoning", "role", "tool_calls"),
    },
    "vllm.entrypoints.generate.base.protocol:FunctionCall": {"arguments", "name"},
    "vllm.entrypoints.generate.base.protocol:ToolCall": {"function", "id"},
}
"""Attributes of vLLM's objects that we use."""
CALLS: dict[str, tuple[int, set[str]]] = {
    f"{CHAT}.create_chat_completion": (3, set()),
    f"{CHAT}.render_chat_request": (2, set()),
    f"{CHAT}._effective_chat_template_kwargs": (2, set()),
    f"{CHAT}._make_parser": (4, set()),
    f"{CHAT}._extract_prompt_len": (2, set()),
    f"{MESSAGES}._get_disabled_thinking_effort": (1, set()),
    f"{MESSAGES}.to_chat_completion_request": (
        1,
        {"merge_inline_system", "disabled_thinking_effort"},
    ),
    f"{RESPONSES}._check_model": (2, set()),
    f"{RESPONSES}.create_responses": (3, set()),
    "vllm.parser.abstract_parser:Parser.parse_delta": (
        1,
        {"delta_text", "delta_token_ids", "request", "prompt_token_ids", "finished"},
    ),
    "vllm.renderers:TokenizeParams": (
        0,
        {"max_total_tokens", "max_output_tokens", "truncate_prompt_tokens"},
    ),
}
"""How many positional arguments we pass to vLLM's functions, with `self`, and which others."""

SCRIPT = """
import inspect, json, sys
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat as Chat
from vllm.entrypoints.openai.responses.utils import custom_tool_names
from vllm.sampling_params import StructuredOutputsParams as Spec
from vllm.tool_parsers.structural_tag_registry import _dump_tool_for_xgrammar
from vllm.tool_parsers.utils import CUSTOM_TOOL_INPUT_KEY, custom_tool_parameters

from deployments.engines import call as calls
from deployments.engines.call import CallContext, GrammarFields
from deployments.engines.vllm import grammars
from deployments.engines.vllm.api.custom_tools import INPUT, input_schema
from deployments.engines.vllm.api.messages_request import CountRequest, MessagesRequest
from deployments.engines.vllm.api.messages_serving import CountedChat, MessagesServing, chat_request
from deployments.engines.vllm.api.pattern_tool import PatternTool, vllm_tool
from deployments.engines.vllm.api.rebound import rebound
from tests.contract.test_private_names import has, resolved

attributes, signatures = json.loads(sys.argv[1])
said = {}
said["missing"] = [f"{owner}.{name}" for owner, names in attributes for name in names
                   if not has(resolved(owner), name)]

def takes(path, positional, named):
    owner, _, name = path.partition(":")
    found = resolved(f"{owner}:{name.split('.')[0]}")
    for part in name.split(".")[1:]:
        found = inspect.getattr_static(found, part)
        found = getattr(found, "__func__", found)
    try:
        signature = inspect.signature(found)
        bound = positional + (1 if "cls" in signature.parameters else 0)
        signature.bind_partial(*[None] * bound, **dict.fromkeys(named))
    except TypeError as error:
        return f"{path}: {error}"
said["calls"] = [wrong for each in signatures if (wrong := takes(*each))]

names = ("ChatCompletionStreamResponse", "ChatCompletionResponseStreamChoice", "DeltaMessage",
         "maybe_filter_parallel_tool_calls")
rebound(Chat.chat_completion_stream_generator, dict.fromkeys(names))
said["generator"] = [*inspect.signature(Chat.chat_completion_stream_generator).parameters][:3]
servings = ("ChatServing", "AnthropicServingMessages", "OpenAIServingChat")
said["order"] = [each.__name__ for each in MessagesServing.__mro__ if each.__name__ in servings]

# Tools whose input has a pattern.
custom = {"type": "custom", "name": "c", "description": "C.",
          "format": {"type": "grammar", "syntax": "regex", "definition": "[a-c]+"}}
tool = vllm_tool(custom)
said["pattern"] = {
    "type": tool.type,
    "names": sorted(custom_tool_names([tool])),
    "dumped": _dump_tool_for_xgrammar(tool)["function"],
    "own": [custom_tool_parameters() == input_schema(None), CUSTOM_TOOL_INPUT_KEY == INPUT],
    "serialized": tool.model_dump(mode="json")["type"],
}

# Requests in vLLM's terms.
SAID = [{"role": "user", "content": "hi"}]
FORM = {"type": "json_schema", "schema": {"type": "object"}}
TOOL = {"name": "f", "input_schema": {"type": "object"}}
def chat(kind=MessagesRequest, **fields):
    body = {"model": "m", "messages": SAID, **fields}
    if kind is MessagesRequest:
        body = {"max_tokens": 5, **body}
    return chat_request(kind.model_validate(body), joins_system=False)
document = {"type": "document", "title": "T", "source": {"type": "text", "data": "D"}}
whole = chat(
    max_tokens=2048, stop_sequences=["x"], output_format=FORM,
    tools=[TOOL], tool_choice={"type": "any"},
    messages=[{"role": "user", "content": [document, {"type": "text", "text": "hi"}]}],
    thinking={"type": "enabled", "budget_tokens": 1024},
)
counted = chat(CountRequest, tools=[TOOL])
counted.__class__ = CountedChat
said["chat"] = {
    "content": whole.messages[0]["content"],
    "format": whole.response_format.json_schema.json_schema,
    "limit": whole.max_completion_tokens,
    "stop": whole.stop,
    "choice": whole.tool_choice,
    "budget": whole.thinking_token_budget,
    "none": chat(tools=[TOOL], tool_choice={"type": "none"}).tools,
    "counted": counted.tools[0].function.name,
}

# Errors of grammars.
def field_of(spec, *fields):
    calls._context.set(CallContext(None, grammar_fields=GrammarFields(*fields)))
    return grammars._field_of(spec)
said["fields"] = [
    field_of(Spec(json={}), "text.format", "tools"),
    field_of(Spec(structural_tag="{}"), "text.format", "tools"),
    field_of(Spec(json={}), None, "tools"),
    field_of(Spec(structural_tag="{}"), "response_format", None),
]
calls._context.set(None)
said["fields"].append(grammars._field_of(Spec(structural_tag="{}")))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said() -> Any:
    """What the installed vLLM has, and does."""
    owners = [*ATTRIBUTES.items(), *INHERITED.values(), *((o, {n}) for n, o in UNDERSCORED.items())]
    calls = [(path, count, sorted(names)) for path, (count, names) in CALLS.items()]
    tables = json.dumps([[(owner, sorted(names)) for owner, names in owners], calls])
    ended = run_script(SCRIPT, tables)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_the_tables_list_what_our_routes_use() -> None:
    """A name that comes or goes in the code comes or goes here."""
    used = {name: names - OF_OURS for name, names in inherited(VLLM / "api").items()}
    assert {name: names for name, names in used.items() if names and name not in EXCEPTIONS} == {
        name: names for name, (_, names) in INHERITED.items()
    }
    by_super = {name for names in used.values() for name in names} - UNDERSCORED.keys()
    assert underscored(VLLM / "api") - OF_OURS - by_super == UNDERSCORED.keys()


def test_vllm_has_what_our_routes_use(said: Any) -> None:
    """Attributes and methods, with the parameters that we pass."""
    assert said["missing"] == []
    assert said["calls"] == []


def test_vllms_generator_of_a_chat_writes_our_events(said: Any) -> None:
    """It uses the names that stand for our objects, and gets the results in its second place."""
    assert said["generator"] == ["self", "request", "result_generator"]
    assert said["order"] == ["ChatServing", "AnthropicServingMessages", "OpenAIServingChat"]


def test_a_custom_tool_with_a_pattern_is_one_for_vllm(said: Any) -> None:
    """Its calls are taken back apart; its grammar is made of the schema of a function."""
    pattern = said["pattern"]
    assert (pattern["type"], pattern["names"]) == ("custom", ["c"])
    assert pattern["serialized"] == "function"
    shown = pattern["dumped"]["parameters"]
    assert shown["properties"]["input"]["pattern"] == "[a-c]+"
    assert pattern["dumped"]["strict"]
    assert pattern["own"] == [True, True]  # without a pattern it is shown as vLLM shows it


def test_messages_are_chats_for_vllm(said: Any) -> None:
    """Every field of a request has its place there."""
    chat = said["chat"]
    texts = [part["text"] for part in chat["content"]]
    assert texts == ["T\n", "D", "hi"]
    assert (chat["format"], chat["limit"], chat["stop"]) == ({"type": "object"}, 2048, ["x"])
    assert (chat["choice"], chat["budget"], chat["none"]) == ("required", 1024, None)
    assert chat["counted"] == "f"


def test_a_grammar_of_tools_is_a_structural_tag(said: Any) -> None:
    """So that the client's field is known; without a call it is vLLM's own."""
    assert said["fields"] == [
        *("text.format", "tools", "tools", "response_format"),
        "structured_outputs",
    ]
