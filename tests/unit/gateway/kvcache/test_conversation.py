"""Tests of canonical text: what an engine renders alike has the same keys, in every API."""

import base64
import json
from collections.abc import Mapping

import pytest

from gateway.kvcache.prefix import MAX_TEXT, Prompt, prompt_of
from gateway.request.head import parse_json
from gateway.telemetry.facts import PromptLayout

LONG = "The quick brown fox jumps over the lazy dog. " * 30
HERMES = PromptLayout(
    has_names=False, has_call_ids=False, has_hermes_calls=True, reasoning="never", arguments=()
)
TOOL = {"name": "f", "description": LONG, "parameters": {"type": "object", "properties": {}}}
CHAT_TOOL = {"type": "function", "function": TOOL}
HEADER = "x-anthropic-billing-header: cc_version=2.1; cch=%s;"

Fields = Mapping[str, object]


def read(fields: Fields, layout: PromptLayout = PromptLayout()) -> Prompt:  # noqa: B008 - frozen
    """The prompt of a request with these fields."""
    return prompt_of(parse_json(json.dumps({"model": "m", **fields}).encode()), "m", layout)


def said(content: object, role: str = "user") -> dict[str, object]:
    """A message."""
    return {"role": role, "content": content}


def text(value: str) -> Fields:
    """A text part."""
    return {"type": "text", "text": value}


def input_text(value: str) -> Fields:
    """A text part of the Responses API."""
    return {"type": "input_text", "text": value}


def file(value: str, head: str = "data:text/plain;base64,", **fields: str) -> Fields:
    """A file of the Responses API."""
    data = head + base64.b64encode(value.encode()).decode()
    return {"type": "input_file", "file_data": data, **fields}


def call(arguments: object, id_: str = "1") -> Fields:
    """A call of a tool in OpenAI's form."""
    return {"id": id_, "type": "function", "function": {"name": "f", "arguments": arguments}}


def use(arguments: object, id_: str = "1") -> Fields:
    """A call of a tool in Anthropic's form."""
    return {"type": "tool_use", "id": id_, "name": "f", "input": arguments}


def used(content: object) -> Fields:
    """The result of a call in Anthropic's form."""
    return {"type": "tool_result", "tool_use_id": "1", "content": content}


def called(*calls: Fields, content: object = None, **more: object) -> Fields:
    """An assistant's message with calls."""
    return {**said(content, "assistant"), "tool_calls": list(calls), **more}


def result(content: object, id_: str = "1") -> Fields:
    """The result of a call in OpenAI's form."""
    return {**said(content, "tool"), "tool_call_id": id_}


SAME: list[tuple[str, Fields, Fields]] = [
    (
        "the billing header in a block",
        {"system": [text(HEADER % "1"), text(LONG)], "messages": [said("hi")]},
        {"system": [text(HEADER % "2"), text(LONG)], "messages": [said("hi")]},
    ),
    (
        "the billing header or none",
        {"system": [text(HEADER % "1"), text(LONG)], "messages": [said("hi")]},
        {"system": LONG, "messages": [said("hi")]},
    ),
    (
        "the billing header in a line",
        {"messages": [said(f"{HEADER % 1}\n{LONG}", "system")]},
        {"messages": [said([text(f"{HEADER % 2}\n{LONG}")], "system")]},
    ),
    (
        "an empty system prompt",
        {"system": "", "messages": [said(LONG)]},
        {"messages": [said(LONG)]},
    ),
    (
        "blocks of a system prompt",
        {"system": [text(LONG[:50]), text(LONG[50:])], "messages": [said("hi")]},
        {"messages": [said(LONG, "system"), said("hi")]},
    ),
    (
        "tools of chats and messages",
        {"tools": [CHAT_TOOL], "messages": [said("hi")]},
        {
            "tools": [
                {
                    "cache_control": {"type": "ephemeral"},
                    "input_schema": TOOL["parameters"],
                    "description": LONG,
                    "name": "f",
                    "eager_input_streaming": True,
                }
            ],
            "messages": [said("hi")],
        },
    ),
    (
        "tools of chats and responses",
        {"tools": [CHAT_TOOL], "messages": [said("hi")]},
        {"tools": [{"type": "function", **TOOL, "strict": None}], "input": "hi"},
    ),
    (
        "tools that are not rendered",
        {"tools": [{"type": "function", **TOOL}, {"type": "web_search"}], "input": "hi"},
        {"tools": [{"type": "function", **TOOL}], "input": "hi"},
    ),
    ("one text", {"input": LONG}, {"messages": [said(LONG)]}),
    (
        "spaces in arguments",
        {"messages": [called(call('{"a": "\\u00e9", "b": [1,2]}')), result(LONG)]},
        {"messages": [called(call('{"a":"é","b":[1, 2]}')), result([text(LONG)])]},
    ),
    (
        "invalid arguments",
        {"messages": [called(call("{")), result(LONG)]},
        {"messages": [called(call("[]")), result(LONG)]},
    ),
    (
        "calls and results of chats and messages",
        {"messages": [called(call('{"a":1}'), content=LONG), result("yes"), said("go on")]},
        {
            "messages": [
                said([text(LONG), use({"a": 1})], "assistant"),
                said(
                    [text("go on"), {"type": "tool_result", "tool_use_id": "1", "content": "yes"}]
                ),
            ]
        },
    ),
    (
        "calls and results of chats and responses",
        {"messages": [called(call('{"a":1}'), content=LONG), result("yes")]},
        {
            "input": [
                said(LONG, "assistant"),
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a": 1}'},
                {"type": "function_call_output", "call_id": "1", "output": "yes"},
            ]
        },
    ),
    (
        "reasoning",
        {"messages": [{**said(LONG, "assistant"), "reasoning_content": "hm"}]},
        {"messages": [said([{"type": "thinking", "thinking": "hm"}, text(LONG)], "assistant")]},
    ),
    (
        "images of chats and messages",
        {
            "messages": [
                said([{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}]),
                said(LONG),
            ]
        },
        {
            "messages": [
                said(
                    [
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="},
                        }
                    ]
                ),
                said(LONG),
            ]
        },
    ),
    (
        "files of text",
        {"input": [said([file(f"é{LONG}", filename="a.txt"), file("b"), file("c", "")])]},
        {"input": [said([input_text(f"a.txt:\né{LONG}"), input_text("b"), input_text("c")])]},
    ),
    (
        "how much to think",
        {"input": LONG, "reasoning": {"effort": "low", "summary": "auto"}},
        {"messages": [said(LONG)], "reasoning_effort": "low"},
    ),
    (
        "a budget of thoughts",
        {"messages": [said(LONG)], "thinking": {"type": "enabled", "budget_tokens": 2000}},
        {"messages": [said(LONG)], "thinking": {"type": "adaptive"}, "output_config": {}},
    ),
    (
        "a choice of tools",
        {"messages": [said(LONG)], "tools": [CHAT_TOOL], "tool_choice": "none"},
        {"messages": [said(LONG)], "tools": [CHAT_TOOL], "tool_choice": "auto"},
    ),
    (
        "the order of template arguments",
        {"messages": [said(LONG)], "chat_template_kwargs": {"a": 1, "b": 2}},
        {"messages": [said(LONG)], "chat_template_kwargs": {"b": 2, "a": 1}},
    ),
]


@pytest.mark.parametrize(("one", "other"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_what_is_rendered_alike_has_the_same_keys(one: Fields, other: Fields) -> None:
    """Spellings and APIs do not matter, nor does what the engine leaves out."""
    assert read(one).keys
    assert read(one) == read(other)


def test_a_large_file_has_the_keys_of_its_text() -> None:
    """Only as much of a file is decoded as has keys; its size counts as a text's does."""
    large = LONG * (2 * MAX_TEXT // len(LONG))

    one = read({"input": [said([file(large)])]})
    other = read({"input": [said([input_text(large)])]})

    assert one.keys == other.keys
    assert one.size == pytest.approx(other.size, rel=0.01)


DIFFERENT: list[tuple[str, Fields, Fields]] = [
    (
        "marks in texts",
        {"messages": [said(f"a\x1eassistant\x1fb{LONG}")]},
        {"messages": [said("a"), said(f"b{LONG}", "assistant")]},
    ),
    (
        "numbers in arguments",
        {"messages": [called(call('{"a": 1}')), result(LONG)]},
        {"messages": [called(call('{"a": 1.0}')), result(LONG)]},
    ),
    (
        "the order of a tool's properties",
        {"tools": [{"name": "f", "input_schema": {"a": 1, "b": 2}}], "messages": [said(LONG)]},
        {"tools": [{"name": "f", "input_schema": {"b": 2, "a": 1}}], "messages": [said(LONG)]},
    ),
    (
        "strict tools",
        {"tools": [{"type": "function", **TOOL}], "input": LONG},
        {"tools": [{"type": "function", **TOOL, "strict": True}], "input": LONG},
    ),
    (
        "reasoning",
        {"messages": [{**said(LONG, "assistant"), "reasoning": "hm"}]},
        {"messages": [{**said(LONG, "assistant"), "reasoning": "no"}]},
    ),
    (
        "tools that a message adds",
        {"messages": [said([{"type": "tool_addition", "tool": {"name": "a"}}], "system")]},
        {"messages": [said([{"type": "tool_addition", "tool": {"name": "b"}}], "system")]},
    ),
    ("suffixes", {"prompt": LONG, "suffix": "a"}, {"prompt": LONG, "suffix": "b"}),
]


@pytest.mark.parametrize(
    ("one", "other"), [row[1:] for row in DIFFERENT], ids=[row[0] for row in DIFFERENT]
)
def test_what_is_rendered_differently_has_different_keys(one: Fields, other: Fields) -> None:
    """Whatever a template renders counts, and no text passes for another conversation."""
    first, second = read(one), read(other)
    assert (first.seed, list(first.keys), first.reply_start) != (
        *(second.seed, list(second.keys), second.reply_start),
    )


def test_tools_follow_the_system_prompt() -> None:
    """Most templates render them so: other tools leave the system prompt's keys as they are."""
    chat = {"system": LONG, "messages": [said("hi")]}
    one, other = (
        read({**chat, "tools": [{**CHAT_TOOL, "function": {**TOOL, "name": name}}]}).keys
        for name in "fg"
    )
    shared = [a == b for a, b in zip(one, other, strict=True)]
    assert shared == sorted(shared, reverse=True)
    assert shared.count(True) == len(LONG) // 256


def test_tools_come_first_where_the_template_has_them_first() -> None:
    """Then another system prompt leaves the tools' keys as they are."""
    layout = PromptLayout(has_tools_first=True)
    one, other = (
        read({"system": name, "messages": [said(LONG)], "tools": [CHAT_TOOL]}, layout).keys
        for name in "ab"
    )
    assert one[: len(LONG) // 256] == other[: len(LONG) // 256]
    assert one[-1] != other[-1]


LAYOUTS: list[tuple[str, PromptLayout, Fields, Fields]] = [
    (
        "names",
        PromptLayout(has_names=False),
        {"messages": [{**said(LONG), "name": "a"}]},
        {"messages": [said(LONG)]},
    ),
    (
        "ids of calls",
        PromptLayout(has_call_ids=False),
        {"messages": [called(call("{}", "1")), result(LONG, "1")]},
        {"messages": [called(call("{}", "2")), result(LONG, "2")]},
    ),
    (
        "separators",
        PromptLayout(separator="\n"),
        {"messages": [said([text("a"), text(LONG)])]},
        {"messages": [said(f"a\n{LONG}")]},
    ),
    (
        "reasoning that is never rendered",
        PromptLayout(reasoning="never"),
        {"messages": [{**said(LONG, "assistant"), "reasoning": "hm"}]},
        {"messages": [said(LONG, "assistant")]},
    ),
    (
        "reasoning before the user has answered",
        PromptLayout(reasoning="until_user"),
        {"messages": [{**said(LONG, "assistant"), "reasoning": "hm"}, said("go on")]},
        {"messages": [said(LONG, "assistant"), said("go on")]},
    ),
    (
        "system messages that are joined",
        PromptLayout(joins_system=True),
        {"system": "a", "messages": [said("hi"), said(LONG, "system")]},
        {"system": f"a{LONG}", "messages": [said("hi")]},
    ),
    (
        "tools that are not to be called",
        PromptLayout(has_tools_always=False),
        {"messages": [said(LONG)], "tools": [CHAT_TOOL], "tool_choice": "none"},
        {"messages": [said(LONG)]},
    ),
    (
        "an empty system message",
        PromptLayout(omits_empty_system=True),
        {"messages": [said("x-anthropic-billing-header: 1", "system"), said(LONG)]},
        {"messages": [said(LONG)]},
    ),
    (
        "developers",
        PromptLayout(),
        {"messages": [said(LONG, "developer")]},
        {"messages": [said(LONG, "system")]},
    ),
    (
        "developers that join system messages",
        PromptLayout(developers="joined"),
        {"messages": [said("a", "system"), said("hi"), said(LONG, "developer")]},
        {"messages": [said(f"a\n\n{LONG}", "system"), said("hi")]},
    ),
    (
        "arguments that the template does not read",
        PromptLayout(arguments=("messages",)),
        {
            "messages": [said(LONG)],
            "chat_template_kwargs": {"enable_thinking": False},
            "output_config": {"effort": "high"},
            "documents": [{"text": "d"}],
        },
        {"messages": [said(LONG)]},
    ),
]


@pytest.mark.parametrize(
    ("layout", "one", "other"), [row[1:] for row in LAYOUTS], ids=[row[0] for row in LAYOUTS]
)
def test_the_layout_says_what_is_rendered_alike(
    layout: PromptLayout, one: Fields, other: Fields
) -> None:
    """What the template leaves out, or joins, makes no difference."""
    assert read(one, layout).keys
    assert read(one, layout) == read(other, layout)


@pytest.mark.parametrize("row", [row for row in LAYOUTS if row[0] != "developers"])
def test_without_a_layout_all_counts(row: tuple[str, PromptLayout, Fields, Fields]) -> None:
    """An unknown template may render it."""
    assert read(row[2]) != read(row[3])


def test_latest_reasoning_counts_until_the_user_answers() -> None:
    """Some templates keep the reasoning between calls of tools, and drop it afterwards."""
    layout = PromptLayout(reasoning="until_user")
    one, other = (
        read({"messages": [called(call("{}"), reasoning=each), result(LONG)]}, layout).keys
        for each in ("hm", "no")
    )
    assert one[0] != other[0]


def test_a_call_as_the_model_wrote_it_extends_the_prompt() -> None:
    """The engine computes the next turn's keys from its own text, calls of tools included."""
    asked = [said(LONG)]
    prompt = read({"messages": asked, "tools": [CHAT_TOOL]}, HERMES)
    reply = 'Yes.\n<tool_call>\n{"name": "f", "arguments": {"a": "é", "b": [1, 2]}}\n</tool_call>'
    answer = called(call('{"a":"\\u00e9","b":[1,2]}'), content="Yes.")

    following = read({"messages": [*asked, answer], "tools": [CHAT_TOOL]}, HERMES)

    assert prompt.reply_start is not None
    assert following.reply_start is not None
    end = following.reply_start.removesuffix(b"\xffassistant\xfe")
    assert (prompt.reply_start + reply.encode()).endswith(end)


@pytest.mark.parametrize(
    ("more", "start"),
    [
        ({}, b"hi\xffassistant\xfe"),
        ({"continue_final_message": True, "add_generation_prompt": False}, b"hi"),
        ({"continue_final_message": "yes", "add_generation_prompt": 0}, b"hi"),
        ({"add_generation_prompt": False}, None),
        ({"add_generation_prompt": "off"}, None),
        ({"add_generation_prompt": 1, "continue_final_message": "no"}, b"hi\xffassistant\xfe"),
    ],
)
def test_the_reply_starts_where_the_client_says(more: Fields, start: bytes | None) -> None:
    """It may go on with the last message, and where it starts nowhere it extends no keys."""
    plain, found = (
        read({"messages": [said(LONG + "hi")]}),
        read({"messages": [said(LONG + "hi")], **more}),
    )
    assert found.keys == plain.keys
    reply = found.reply_start
    assert reply is None if start is None else reply is not None and reply.endswith(start)


@pytest.mark.parametrize(
    ("path", "fields", "ignored"),
    [
        ("/v1/chat/completions", {"messages": [said(LONG)]}, {"system": "a", "input": "b"}),
        ("/v1/completions", {"prompt": LONG}, {"messages": [said("a")], "documents": [{"a": "b"}]}),
        ("/v1/completions", {"prompt": LONG}, {"add_special_tokens": True}),
        ("/v1/chat/completions", {"messages": [said(LONG)]}, {"add_special_tokens": False}),
        ("/v1/completions", {"prompt": LONG}, {"add_special_tokens": "yes"}),
        ("/v1/chat/completions", {"messages": [said(LONG)]}, {"add_special_tokens": 0}),
        ("/v1/messages", {"messages": [said(LONG)]}, {"reasoning_effort": "low", "prompt": "a"}),
        ("/v1/responses", {"input": LONG}, {"messages": [said("a")], "suffix": "b"}),
    ],
)
def test_fields_of_other_routes_do_not_count(path: str, fields: Fields, ignored: Fields) -> None:
    """An engine ignores a field that is not of the request's API, and a default says nothing."""
    one, other = (
        prompt_of(parse_json(json.dumps({"model": "m", **each}).encode()), path=path)
        for each in (fields, {**fields, **ignored})
    )
    assert one.keys
    assert one == other


def test_lax_booleans_are_the_same() -> None:
    """Engines take `0`, `no` and others for false."""
    one, other = (
        prompt_of(
            parse_json(json.dumps({"model": "m", "prompt": LONG, **each}).encode()),
            path="/v1/completions",
        )
        for each in ({"add_special_tokens": False}, {"add_special_tokens": "No"})
    )
    assert one == other


def test_an_own_template_is_unknown() -> None:
    """A request that brings one is not rendered as the layout says."""
    one, other = (
        read({"messages": [{**said(LONG), "name": name}], "chat_template": "{{x}}"}, HERMES).keys
        for name in "ab"
    )
    assert one != other
