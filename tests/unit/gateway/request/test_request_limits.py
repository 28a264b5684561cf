"""Limits of requests: what is refused before an engine sees it, and what no limit meets."""

import json
from typing import Any

import pytest

from gateway.config.limits import Limits
from gateway.errors.request import ContextExceeded, LimitExceeded
from gateway.request import prompt_size, tool_limits
from gateway.request.request_limits import MIN_PROMPT_BYTES, check_context, check_limits
from gateway.request.routes import CHAT, COMPLETIONS, parse_head

EMBEDDINGS = "/v1/embeddings"
TOKENIZE = "/tokenize"
LIMITS = Limits()
SMALL = Limits(
    parameter_bytes=5000,
    n=4,
    prompts=3,
    words=3,
    words_bytes=100,
    token_ids=3,
    logprobs=5,
    choices=3,
    choices_bytes=100,
    regex_bytes=20,
    grammar_bytes=20,
    schema_bytes=1000,
    schema_values=30,
    schema_depth=8,
    tools=40,
    tools_bytes=20_000,
)
DEEP: Any = {}
for _ in range(20):
    DEEP = {"properties": DEEP}
WIDE = {"properties": {f"p{i}": {"type": "string"} for i in range(20)}}
ENUM = {"enum": ["a", "b", "c", "d"]}
PATTERN = {"items": {"pattern": "a|" * 20}}
LARGE = {"description": "x" * 2000}


def check(limits: Limits, path: str = CHAT, **fields: Any) -> None:
    """Check a request with these fields."""
    body = json.dumps({"model": "m", **fields}).encode()
    check_limits(parse_head(path, body, b""), limits)


def check_size(path: str, max_model_len: int = 2048, **fields: object) -> None:
    """Check the prompt of a request with these fields against a model's context."""
    body = json.dumps({"model": "m", **fields}).encode()
    check_context(parse_head(path, body, b""), path, LIMITS, max_model_len)


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("n", 5, "n"),
        ("n", "2000", "n"),
        ("n", 10**30, "n"),
        ("best_of", 5, "n"),
        ("logprobs", 6, "logprobs"),
        ("top_logprobs", 6, "logprobs"),
        ("prompt_logprobs", 6, "logprobs"),
        ("bad_words", ["w" * 100], "words_bytes"),
        ("stop", ["w" * 10_000], "words_bytes"),
        ("bad_words", ["a", "b", "c", "d"], "words"),
        ("stop", "w" * 100, "words_bytes"),
        ("stop", ["a", "b", "c", "d"], "words"),
        ("stop_sequences", ["a", "b", "c", "d"], "words"),
        ("logit_bias", {"1": 1, "2": 1, "3": 1, "4": 1}, "token_ids"),
        ("allowed_token_ids", [1, 2, 3, 4], "token_ids"),
        ("stop_token_ids", [1, 2, 3, 4], "token_ids"),
        ("logprob_token_ids", [1, 2, 3, 4], "token_ids"),
        ("guided_regex", "a" * 30, "regex_bytes"),
        ("guided_grammar", "a" * 30, "grammar_bytes"),
        ("guided_choice", ["a", "b", "c", "d"], "choices"),
        ("guided_json", LARGE, "schema_bytes"),
        ("guided_json", json.dumps(WIDE), "schema_values"),
        ("tools", [{"description": "x" * 30_000}], "tools_bytes"),
        ("tools", [{"function": {"name": "x" * 400}}] * 41, "tools"),
        ("tools", [{"name": "x" * 400, "input_schema": {}}] * 41, "tools"),
    ],
)
def test_each_field_has_a_limit(field: str, value: object, limit: str) -> None:
    """The error names the field, and the limit that an operator can raise."""
    with pytest.raises(LimitExceeded, match=f"`limits.{limit}`") as raised:
        check(SMALL, CHAT, **{field: value})
    assert raised.value.param == field
    assert f"`{field}`" in raised.value.message
    if limit != "n" or value == 5:
        check(LIMITS, CHAT, **{field: value})


@pytest.mark.parametrize(
    ("schema", "limit"),
    [
        (DEEP, "schema_depth"),
        (WIDE, "schema_values"),
        (ENUM, "choices"),
        ({"enum": ["x" * 200]}, "choices_bytes"),
        (PATTERN, "regex_bytes"),
        ({"patternProperties": {"a|" * 20: {}}}, "regex_bytes"),
        ({"propertyNames": {"pattern": "a|" * 20}}, "regex_bytes"),
        ({"type": "regex", "regex": "a|" * 20}, "regex_bytes"),
        ({"type": "grammar", "grammar": "a|" * 20}, "grammar_bytes"),
        ({"type": "grammar", "definition": "a|" * 20}, "grammar_bytes"),
        ({"ebnf": "a|" * 20}, "grammar_bytes"),
        (LARGE, "schema_bytes"),
    ],
)
def test_a_schema_is_limited_in_all_spellings(schema: object, limit: str) -> None:
    """OpenAI, Anthropic and vLLM each have their own fields for it."""
    spellings: dict[str, tuple[str, object]] = {
        "structured_outputs.json": ("structured_outputs", {"json": schema}),
        "structured_outputs.structural_tag": (
            "structured_outputs",
            {"structural_tag": json.dumps({"format": {"json_schema": schema}})},
        ),
        "guided_json": ("guided_json", json.dumps(schema)),
        "response_format": (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        ),
        "text": ("text", {"format": {"type": "json_schema", "schema": schema}}),
        "output_format": ("output_format", {"type": "json_schema", "schema": schema}),
        "output_config": ("output_config", {"format": {"schema": schema}}),
    }
    for param, (field, value) in spellings.items():
        with pytest.raises(LimitExceeded, match=f"`limits.{limit}`") as raised:
            check(SMALL, CHAT, **{field: value})
        assert raised.value.param == param
        check(LIMITS, CHAT, **{field: value})


@pytest.mark.parametrize(
    ("kind", "value", "limit"),
    [
        ("choice", ["a", "b", "c", "d"], "choices"),
        ("choice", ["x" * 200], "choices_bytes"),
        ("regex", "a|" * 20, "regex_bytes"),
        ("grammar", "root ::= " * 20, "grammar_bytes"),
    ],
)
def test_other_constraints_are_limited(kind: str, value: object, limit: str) -> None:
    """Each kind by what its compilation takes."""
    with pytest.raises(LimitExceeded, match=f"`limits.{limit}`") as raised:
        check(SMALL, structured_outputs={kind: value})
    assert raised.value.param == f"structured_outputs.{kind}"
    check(LIMITS, structured_outputs={kind: value})


def test_schemas_of_tools_count_where_arguments_must_follow_them() -> None:
    """Tools that a model may call as it likes are prompt only."""
    limits = Limits(schema_values=30)
    tools = [{"function": {"name": "x" * tool_limits.SMALL_TOOLS, "parameters": WIDE}}]
    check(limits, tools=tools)
    check(limits, tools=tools, tool_choice="auto")
    for fields in ({"tool_choice": "required"}, {"tool_choice": {"name": "x"}}):
        with pytest.raises(LimitExceeded, match="schema_values") as raised:
            check(limits, tools=tools, **fields)
        assert raised.value.param == "tools[0]"
    check(limits, tools=tools, tool_choice={"type": "auto"})
    check(limits, tools=[*tools, {"function": {"name": "f", "strict": True}}])
    for strict in (True, 1, "yes"):
        with pytest.raises(LimitExceeded, match="schema_values"):
            check(limits, tools=[{**tools[0], "strict": strict}])


def test_schemas_of_tools_are_counted_together() -> None:
    """Many schemas that are small enough cost as much as one that is not."""
    tool = {"function": {"name": "f", "strict": True, "description": "x" * 3000, "a": [1] * 100}}
    check(LIMITS, tools=[tool] * 400)
    with pytest.raises(LimitExceeded, match=r"`tools` .*tools_values"):
        check(LIMITS, tools=[tool] * 500)
    with pytest.raises(LimitExceeded, match=r"`tools` .*tools_values"):
        check(LIMITS, tools=[{"function": {"strict": True, "enum": [1] * 450_000}}])


def test_tools_are_the_same_in_every_spelling() -> None:
    """Letters may be written as escapes, which no honest client does."""
    many = [{"name": "x" * 400}] * 41
    strict = [{"function": {"name": "x" * tool_limits.SMALL_TOOLS, "strict": True, "a": WIDE}}]
    strict_limits = Limits(schema_values=30)
    for limits, tools, name in ((SMALL, many, "name"), (strict_limits, strict, "strict")):
        disguised = rf"\u00{ord(name[0]):x}{name[1:]}"
        body = json.dumps({"model": "m", "tools": tools}).replace(name, disguised)
        with pytest.raises(LimitExceeded):
            check_limits(parse_head(CHAT, body.encode(), b""), limits)


def test_tools_that_are_known_are_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents send the same ones every time; other limits or choices are another matter."""
    known = tool_limits.CheckedTools()
    tool = {"function": {"name": "x" * tool_limits.SMALL_TOOLS, "parameters": WIDE}}

    def check_known(limits: Limits, **fields: object) -> None:
        body = json.dumps({"model": "m", "tools": [tool], **fields}).encode()
        check_limits(parse_head(CHAT, body, b""), limits, known.check)

    check_known(LIMITS)
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            check_known(Limits(schema_values=30), tool_choice="required")
    check_known(Limits(schema_values=30))
    monkeypatch.setattr(tool_limits, "check_tools", None)
    check_known(LIMITS)
    assert len(known) == 2


def test_few_tools_are_known() -> None:
    """Those that were seen last."""
    known = tool_limits.CheckedTools()
    for number in range(tool_limits.CACHED_TOOLS + 10):
        tools = [{"name": f"{number}", "description": "x" * tool_limits.SMALL_TOOLS}]
        body = json.dumps({"model": "m", "tools": tools}).encode()
        check_limits(parse_head(CHAT, body, b""), LIMITS, known.check)
    assert len(known) == tool_limits.CACHED_TOOLS


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (COMPLETIONS, {"prompt": ["a"] * 4}, "prompt"),
        (COMPLETIONS, {"prompt": [[1]] * 4}, "prompt"),
        (EMBEDDINGS, {"input": ["a"] * 4}, "input"),
        ("/v1/rerank", {"query": "q", "documents": ["a"] * 4}, "documents"),
        ("/score", {"text_1": "q", "text_2": ["a"] * 4}, "text_2"),
        ("/pooling", {"input": ["a"] * 4}, "input"),
    ],
)
def test_prompts_of_a_request_are_limited(path: str, fields: Any, param: str) -> None:
    """Each of them is a sequence of its own."""
    with pytest.raises(LimitExceeded, match="has 4 items, and at most 3") as raised:
        check(SMALL, path, **fields)
    assert raised.value.param == param
    check(LIMITS, path, **fields)


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (CHAT, "messages", [{"role": "user", "content": ""}] * 40_000),
        (CHAT, "messages", [{"role": "user", "content": [{"type": "text", "text": ""}] * 40_000}]),
        ("/v1/messages", "system", [{"type": "text", "text": ""}] * 40_000),
        ("/v1/responses", "input", [{"role": "user", "content": ""}] * 40_000),
        (CHAT, "messages", [{}] * 1_100_000),
        (CHAT, "messages", [{"role": "user", "content": ["a"] * 200_000}]),
        (CHAT, "messages", [{}, *[""] * 500_000]),
    ],
)
def test_messages_and_their_parts_are_limited(path: str, field: str, value: object) -> None:
    """Each takes the engine's event loop some time."""
    with pytest.raises(LimitExceeded, match=r"limits\.messages") as raised:
        check(LIMITS, path, **{field: value})
    assert raised.value.param == field
    check(Limits(messages=2_000_000), path, **{field: value})
    check(LIMITS, CHAT, messages=[{"role": "user", "content": "{}" * 300_000}] * 2)


@pytest.mark.parametrize("field", ["metadata", "invented_tomorrow", "chat_template", "user"])
def test_all_fields_together_have_a_limit(field: str) -> None:
    """It holds for fields that nobody knows yet, but not for prompts and tools."""
    with pytest.raises(LimitExceeded, match=r"limits\.parameter_bytes") as raised:
        check(SMALL, **{field: "x" * 6000})
    assert raised.value.param == (None if field == "invented_tomorrow" else field)
    check(LIMITS, **{field: "x" * 6000})
    check(SMALL, messages=["x" * 6000], tools=[{"name": "x" * 6000}], documents=["x" * 6000])
    check(SMALL, "/pooling", data={"image": "x" * 6000})
    check(SMALL, messages=["x"], prediction={"type": "content", "content": "x" * 6000})


def test_honest_requests_meet_no_limit() -> None:
    """Agents with many tools, large schemas and long conversations."""
    tool = {
        "type": "function",
        "function": {"name": "f", "description": "x" * 3000, "parameters": WIDE, "strict": True},
    }
    schema = {"type": "object", "properties": {f"p{i}": WIDE for i in range(40)}}
    check(
        LIMITS,
        messages=[{"role": "user", "content": "x" * 4_000_000}],
        tools=[tool] * 200,
        tool_choice="required",
        n=8,
        stop=["\n\n", "END"],
        logit_bias={str(i): -100 for i in range(1000)},
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
        top_logprobs=20,
    )


HUGE = "w" * (MIN_PROMPT_BYTES + 1)
IDS = list(range(1, 200_000))


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (TOKENIZE, {"prompt": HUGE}, "prompt"),
        (TOKENIZE, {"prompt": HUGE, "truncate_prompt_tokens": 5}, "prompt"),
        (TOKENIZE, {"messages": [{"role": "user", "content": HUGE}]}, "messages"),
        ("/detokenize", {"tokens": IDS}, "tokens"),
        (COMPLETIONS, {"prompt": HUGE, "truncate_prompt_tokens": -1}, "prompt"),
        (COMPLETIONS, {"prompt": ["a", HUGE]}, "prompt"),
        (COMPLETIONS, {"prompt": IDS}, "prompt"),
        (COMPLETIONS, {"prompt": [[1], IDS]}, "prompt"),
        (CHAT, {"messages": [{"role": "user", "content": HUGE}]}, "messages"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": HUGE}]}]},
            "messages",
        ),
        ("/v1/responses", {"input": HUGE}, "input"),
        ("/v1/responses", {"input": "a", "instructions": HUGE}, "instructions"),
        ("/v1/messages", {"messages": [], "system": HUGE}, "system"),
        ("/v1/messages/count_tokens", {"messages": [], "system": [{"text": HUGE}]}, "system"),
        (EMBEDDINGS, {"input": HUGE}, "input"),
        (EMBEDDINGS, {"input": ["a", HUGE]}, "input"),
        ("/score", {"text_1": "a", "text_2": ["b", HUGE]}, "text_2"),
        ("/v1/rerank", {"query": HUGE, "documents": ["b"]}, "query"),
        ("/v1/rerank", {"query": "a", "documents": [{"content": [{"text": HUGE}]}]}, "documents"),
        ("/pooling", {"input": HUGE}, "input"),
        ("/classify", {"input": HUGE}, "input"),
    ],
)
def test_a_prompt_that_cannot_fit_is_refused(path: str, fields: Any, param: str) -> None:
    """Whatever its tokens are, on every route, whether or not the engine would truncate it."""
    with pytest.raises(ContextExceeded, match="maximum context length is 2,048 tokens") as raised:
        check_size(path, **fields)
    assert raised.value.param == param
    check_size(path, 1_000_000, **fields)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + HUGE}},
        {"type": "input_audio", "input_audio": {"data": HUGE, "format": "wav"}},
        {"type": "image", "source": {"type": "base64", "data": HUGE}},
        {"type": "input_image", "image_url": HUGE},
        {"image_url": {"url": HUGE}},
        {"type": "tool_result", "content": [{"type": "image", "source": {"data": HUGE}}]},
    ],
)
def test_media_are_no_text(part: dict[str, object]) -> None:
    """Photographs of megabytes take few tokens; the text around them counts."""
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "What is it?"}]}]
    check_size(CHAT, messages=messages)
    check_size("/v1/responses", input=messages)
    check_size("/v1/responses", input=[{"type": "function_call_output", "output": [part]}])
    with pytest.raises(ContextExceeded):
        check_size(CHAT, messages=[*messages, {"role": "user", "content": HUGE}])


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "type": "image", "content": HUGE},
        {"role": "user", "image_url": 1, "content": HUGE},
        {"role": "user", "content": [{"type": "image", "text": HUGE}]},
        {"role": "user", "content": [{"image_url": "a", "text": HUGE}]},
        {"role": "user", "content": [{"type": "file", "content": HUGE}]},
        {"role": "user", "content": [{"type": "text", "image_url": HUGE}]},
        {
            "role": "user",
            "content": [{"type": "document", "source": {"type": "text", "data": HUGE}}],
        },
        {"type": "image", "content": HUGE},
    ],
)
def test_a_text_is_no_media_whatever_stands_beside_it(message: Any) -> None:
    """Only the data of an image or a file is left out."""
    for path, field in ((CHAT, "messages"), ("/v1/responses", "input")):
        with pytest.raises(ContextExceeded):
            check_size(path, 2048, **{field: [message]})


@pytest.mark.parametrize("prompt", [[1] * 1_100_000, [[1], [1] * 1_100_000]])
def test_token_ids_of_a_long_context_are_counted(prompt: list[Any]) -> None:
    """However many there may be."""
    check_size(COMPLETIONS, 1_200_000, prompt=prompt)
    with pytest.raises(ContextExceeded, match="token ids"):
        check_size(COMPLETIONS, 1_000_000, prompt=prompt)


@pytest.mark.parametrize("prompts", [["a, " * 1000] * 500, [[1] * 1000] * 500])
def test_a_batch_may_be_longer_than_the_context(prompts: list[Any]) -> None:
    """Each prompt of it is measured, however many commas they have together."""
    check_size(EMBEDDINGS, input=prompts)
    longest = HUGE if isinstance(prompts[0], str) else IDS
    with pytest.raises(ContextExceeded):
        check_size(EMBEDDINGS, input=[*prompts, longest])


def test_texts_that_are_only_measured_may_be_longer() -> None:
    """Clients tokenize a text to learn how it has to be cut."""
    text = "w" * 3_000_000
    check_size(TOKENIZE, 16_384, prompt=text)
    with pytest.raises(ContextExceeded):
        check_size(COMPLETIONS, 16_384, prompt=text)


def test_short_prompts_of_models_with_a_short_context_are_left_to_the_engine() -> None:
    """Clients have it truncate documents of any usual length."""
    check_size(EMBEDDINGS, 512, input=["w" * 500_000], truncate_prompt_tokens=-1)


def test_a_costly_conversation_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes of tiny messages are text, whatever they hold."""
    monkeypatch.setattr(prompt_size, "media_bytes", None)
    messages = [{"image_url": ""}] * 300_000
    with pytest.raises(ContextExceeded):
        check_size(CHAT, messages=messages)
