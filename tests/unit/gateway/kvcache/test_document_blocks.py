"""Canonical text of Anthropic's messages: documents, results, hidden thoughts, beginnings."""

import json
from typing import Any

import pytest

from gateway.kvcache.message_content import FAILED_RESULT, LARGE_BYTES
from gateway.kvcache.prefix import Prompt, prompt_of
from gateway.request.head import parse_json
from gateway.request.reasoning_token import make_token
from gateway.telemetry.facts import PromptLayout

LONG = "The quick brown fox jumps over the lazy dog. " * 30
JOINED = PromptLayout(separator="\n", has_call_ids=False, arguments=())
PATH = "/v1/messages"
Block = dict[str, Any]


def read(path: str, *messages: Block, **fields: object) -> Prompt:
    """The prompt of a conversation, sent to a route."""
    body = {"model": "m", "messages": messages, **fields}
    return prompt_of(parse_json(json.dumps(body).encode()), "m", JOINED, path=path)


def user(*blocks: Block | str) -> Block:
    """What a user says."""
    return {"role": "user", "content": [text(b) if isinstance(b, str) else b for b in blocks]}


def text(value: str) -> Block:
    """A block of text."""
    return {"type": "text", "text": value}


def document(**fields: object) -> Block:
    """A document."""
    return {"type": "document", "source": {"type": "text", "data": LONG}, **fields}


def found(title: str, content: object) -> Block:
    """A result of a search."""
    return {"type": "search_result", "title": title, "source": "https://s", "content": content}


def result(content: object, **fields: object) -> Block:
    """The result of a tool."""
    block = {"type": "tool_result", "tool_use_id": "1", "content": content, **fields}
    return {"role": "user", "content": [block]}


CALL: Block = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}],
}


def thinking(thoughts: str, signature: object = "s") -> Block:
    """An answer with thoughts."""
    block = {"type": "thinking", "thinking": thoughts, "signature": signature}
    return {"role": "assistant", "content": [block, text("Yes.")]}


BLOCKS = {"type": "content", "content": [text("a"), text(LONG)]}
LARGE = "x" * (LARGE_BYTES + 1)


@pytest.mark.parametrize(
    ("block", "texts"),
    [
        (document(), [LONG]),
        (document(title="T", context="C"), ["T\n", "C\n", LONG]),
        (document(title=None, context="", citations={"enabled": False}), [LONG]),
        (document(source={"type": "content", "content": LONG}), [LONG]),
        (document(source=BLOCKS, title="é\n"), ["é\n\n", "a", LONG]),
        (document(source={"type": "text", "data": LARGE}), [LARGE]),
        (found("T", LONG), ["T\nhttps://s\n", LONG]),
        (found("T", [text("a"), text(LONG)]), ["T\nhttps://s\n", "a", LONG]),
    ],
)
def test_a_document_counts_as_its_texts(block: Block, texts: list[str]) -> None:
    """In the user's turn and in a tool's result, as a client of chats would write them."""
    one = read(PATH, user("hi", block, "there"))
    other = read("/v1/chat/completions", user("hi", *texts, "there"))
    assert (list(one.keys), one.reply_start) == (list(other.keys), other.reply_start)
    assert not one.has_media
    one = read(PATH, CALL, result([text("hi"), block]))
    other = read(PATH, CALL, result("\n".join(["hi", *texts])))
    assert (list(one.keys), one.reply_start) == (list(other.keys), other.reply_start)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (document(), document(title="T")),
        (document(title="T"), document(title="U")),
        (document(title="T"), document(context="T", title="T")),
        (document(source=BLOCKS), document(source={**BLOCKS, "content": [text("b")]})),
        (found("T", LONG), found("U", LONG)),
        (found("T", LONG), {**found("T", LONG), "source": "https://t"}),
        (found("T", LONG), found("T", f"{LONG}!")),
    ],
)
def test_documents_that_differ_have_different_keys(one: Block, other: Block) -> None:
    """In any part that is rendered."""
    first, second = read(PATH, user(one, LONG)), read(PATH, user(other, LONG))
    assert list(first.keys) != list(second.keys)


def test_images_in_a_document_are_media() -> None:
    """Between its texts."""
    image = {"type": "image", "source": {"type": "url", "url": "https://i"}}
    source = {"type": "content", "content": [text(LONG), image]}
    prompt = read(PATH, user(document(source=source)))
    other = {"type": "image", "source": {"type": "url", "url": "https://j"}}
    source = {"type": "content", "content": [text(LONG), other]}
    assert prompt.has_media
    assert prompt.reply_start != read(PATH, user(document(source=source))).reply_start


@pytest.mark.parametrize(
    "block",
    [
        document(source={"type": "base64", "data": "JVBERg=="}),
        document(source=None),
        document(source={"type": "content", "content": 5}),
        {"type": "search_result", "title": 5, "source": "s", "content": "a"},
        {"type": "search_result"},
    ],
)
def test_what_engines_refuse_is_read_all_the_same(block: Block) -> None:
    """They say what is wrong with it."""
    assert read(PATH, user(block, LONG)).size


@pytest.mark.parametrize(
    ("content", "fields", "expected"),
    [
        ("", {"is_error": True}, FAILED_RESULT),
        ([], {"is_error": True}, FAILED_RESULT),
        (None, {"is_error": True}, FAILED_RESULT),
        ("", {"is_error": False}, ""),
        ("no", {"is_error": True}, "no"),
        ([text("")], {"is_error": True}, ""),
    ],
)
def test_a_tool_that_failed_says_so(content: object, fields: Block, expected: str) -> None:
    """Where its result says nothing."""
    one, other = read(PATH, CALL, result(content, **fields)), read(PATH, CALL, result(expected))
    assert one.reply_start == other.reply_start


def test_hidden_thoughts_count_as_they_are_rendered() -> None:
    """Those in a signature of ours; one of others says nothing."""
    hi, shown = user("hi"), read(PATH, user("hi"), thinking(LONG), user("so"))
    hidden = read(PATH, hi, thinking("", make_token(LONG)), user("so"))
    assert (list(shown.keys), shown.reply_start) == (list(hidden.keys), hidden.reply_start)
    other = read(PATH, hi, thinking("", make_token(f"!{LONG}")), user("so"))
    assert list(other.keys) != list(hidden.keys)
    nothing = [read(PATH, hi, thinking("", each), user("so")) for each in ("EqQBCg", None)]
    assert nothing[0].reply_start == nothing[1].reply_start


def test_hidden_reasoning_of_responses_counts_as_well() -> None:
    """`encrypted_content` stands for the text."""

    def responses(reasoning: Block) -> Prompt:
        item = {"type": "reasoning", "id": "rs", "summary": [], **reasoning}
        answer = {"role": "assistant", "content": "Yes."}
        body = {"model": "m", "input": [{"role": "user", "content": "hi"}, item, answer]}
        return prompt_of(parse_json(json.dumps(body).encode()), "m", JOINED, path="/v1/responses")

    shown = responses({"content": [{"type": "reasoning_text", "text": LONG}]})
    hidden = responses({"encrypted_content": make_token(LONG)})
    assert (list(shown.keys), shown.reply_start) == (list(hidden.keys), hidden.reply_start)
    assert list(shown.keys) != list(responses({}).keys)


@pytest.mark.parametrize(
    "beginning", ["One, two", [text("One,"), text(" two")], [text(""), text("One, two")]]
)
def test_an_answer_that_has_begun_goes_on(beginning: object) -> None:
    """The reply continues the last message, whose texts are one."""
    messages = [user("hi"), {"role": "assistant", "content": beginning}]
    prompt = read(PATH, *messages)
    chat = read(
        "/v1/chat/completions",
        user("hi"),
        {"role": "assistant", "content": "One, two"},
        continue_final_message=True,
        add_generation_prompt=False,
    )
    assert prompt.reply_start == chat.reply_start
    assert prompt.reply_start
    assert prompt.reply_start.endswith(b"One, two")


@pytest.mark.parametrize("beginning", ["", [], [text("")]])
def test_an_empty_beginning_is_not_there(beginning: object) -> None:
    """Engines leave it out."""
    prompt = read(PATH, user("hi"), {"role": "assistant", "content": beginning})
    assert prompt.reply_start == read(PATH, user("hi")).reply_start


def test_tools_that_must_not_be_used_do_not_count() -> None:
    """Engines do not show them, whatever the layout says."""
    tools = [{"name": "f", "description": LONG, "input_schema": {"type": "object"}}]
    none = read(PATH, user(LONG), tools=tools, tool_choice={"type": "none"})
    assert list(none.keys) == list(read(PATH, user(LONG)).keys)
    assert list(none.keys) != list(read(PATH, user(LONG), tools=tools).keys)
