"""Messages of Anthropic's API: what is refused, and what vLLM reads in their place."""

from typing import Any

import pytest

from deployments.engines.vllm.api.messages_blocks import adopt_messages, check_system
from deployments.engines.vllm.api.refused_request import RefusedRequest
from gateway.kvcache.message_content import FAILED_RESULT
from gateway.request.reasoning_token import make_token

Block = dict[str, Any]
HI: Block = {"type": "text", "text": "hi"}
IMAGE: Block = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
}
PDF: Block = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
}
FOUND: Block = {"type": "search_result", "title": "T", "source": "https://s", "content": [HI]}
CALL: Block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}


def text(value: str) -> Block:
    """A block of text."""
    return {"type": "text", "text": value}


def document(source: object, **fields: object) -> Block:
    """A document."""
    return {"type": "document", "source": source, **fields}


def result(content: object, **fields: object) -> Block:
    """The result of a tool."""
    return {"type": "tool_result", "tool_use_id": "t", "content": content, **fields}


def adopted(block: Block, role: str = "user") -> list[Block]:
    """The blocks that vLLM reads in place of one."""
    (message,) = adopt_messages([{"role": role, "content": [block]}])
    assert message["role"] == role
    blocks: list[Block] = message["content"]
    return blocks


PLAIN = {"type": "text", "media_type": "text/plain", "data": "A pelican."}


@pytest.mark.parametrize(
    ("block", "texts"),
    [
        (document(PLAIN), ["A pelican."]),
        (document(PLAIN, title="T", context="C"), ["T\n", "C\n", "A pelican."]),
        (document(PLAIN, title=None, context=""), ["A pelican."]),
        (document(PLAIN, citations={"enabled": False}), ["A pelican."]),
        (document({"type": "content", "content": "A gull."}), ["A gull."]),
        (document({"type": "content", "content": [text("a"), text("b")]}), ["a", "b"]),
        (FOUND, ["T\nhttps://s\n", "hi"]),
        ({**FOUND, "content": "a", "citations": None}, ["T\nhttps://s\n", "a"]),
    ],
)
def test_documents_and_search_results_are_text(block: Block, texts: list[str]) -> None:
    """In the user's turn, and in results of tools."""
    expected = [text(each) for each in texts]
    assert adopted(block) == expected
    (inside,) = adopted(result([block]))
    assert inside["content"] == expected


def test_a_document_may_hold_images() -> None:
    """Which stay as they are, in their place."""
    source = {"type": "content", "content": [HI, IMAGE, HI]}
    assert adopted(document(source)) == [HI, IMAGE, HI]


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (result("a"), "a"),
        (result(None), None),
        (result([HI, IMAGE]), [HI, IMAGE]),
        (result("no", is_error=True), "no"),
        (result("", is_error=True), FAILED_RESULT),
        (result([], is_error=True), FAILED_RESULT),
        ({"type": "tool_result", "tool_use_id": "t", "is_error": True}, FAILED_RESULT),
    ],
)
def test_a_tool_that_failed_says_so(block: Block, content: object) -> None:
    """VLLM would ignore it; a result that says something stays as it is."""
    (inside,) = adopted(block)
    assert inside["content"] == content


@pytest.mark.parametrize(
    ("block", "thoughts"),
    [
        ({"thinking": "Hm.", "signature": "s"}, "Hm."),
        ({"thinking": "Hm."}, "Hm."),
        ({"thinking": "", "signature": make_token("Hm.")}, "Hm."),
        ({"thinking": "", "signature": "EqQBCgIYAhIM"}, ""),
        ({"thinking": ""}, ""),
    ],
)
def test_thoughts_come_back_in_the_clear_or_in_a_signature(block: Block, thoughts: str) -> None:
    """One of ours; those of others say nothing here."""
    (inside,) = adopted({"type": "thinking", **block}, "assistant")
    assert inside["thinking"] == thoughts


@pytest.mark.parametrize(
    ("role", "block"),
    [
        ("user", HI),
        ("user", IMAGE),
        ("user", {"type": "image", "source": {"type": "url", "url": "https://i"}}),
        ("user", {**HI, "cache_control": {"type": "ephemeral"}, "citations": []}),
        ("user", result([{"type": "tool_reference", "tool_name": "f"}])),
        ("assistant", CALL),
        ("assistant", {"type": "redacted_thinking", "data": "x"}),
        ("system", {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "f"}}),
    ],
)
def test_what_vllm_reads_itself_stays_as_it_is(role: str, block: Block) -> None:
    """With the fields that it ignores."""
    assert adopted(block, role) == [block]


def test_a_string_is_a_content() -> None:
    """And messages keep fields that nobody knows."""
    messages = [{"role": "user", "content": "hi", "id": 1}, {"role": "assistant", "content": ""}]
    assert adopt_messages(messages) == messages


@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        ("hi", "messages", "invalid_type"),
        ([], "messages", "empty_array"),
        (["hi"], "messages[0]", "invalid_type"),
        ([{"content": "hi"}], "messages[0].role", "missing_required_parameter"),
        ([{"role": "tool", "content": "x"}], "messages[0].role", "invalid_value"),
        ([{"role": "user"}], "messages[0].content", "missing_required_parameter"),
        ([{"role": "user", "content": 5}], "messages[0].content", "invalid_type"),
        ([{"role": "user", "content": ["hi"]}], "messages[0].content[0]", "invalid_type"),
    ],
)
def test_messages_have_a_role_and_a_content(messages: object, param: str, code: str) -> None:
    """The first that has not is named."""
    with pytest.raises(RefusedRequest) as refused:
        adopt_messages(messages)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize(
    ("role", "block", "param", "code"),
    [
        ("user", {"text": "hi"}, "type", "missing_required_parameter"),
        ("user", {"type": "text"}, "text", "missing_required_parameter"),
        ("user", {"type": "text", "text": 5}, "text", "invalid_type"),
        ("user", {"type": "thinking", "thinking": "x"}, "type", "invalid_value"),
        ("user", CALL, "type", "invalid_value"),
        ("assistant", IMAGE, "type", "invalid_value"),
        ("assistant", result("x"), "type", "invalid_value"),
        ("assistant", {**CALL, "id": None}, "id", "missing_required_parameter"),
        ("assistant", {**CALL, "input": "{}"}, "input", "invalid_type"),
        ("assistant", {"type": "thinking"}, "thinking", "missing_required_parameter"),
        ("system", IMAGE, "type", "invalid_value"),
        ("user", {"type": "image"}, "source", "invalid_type"),
        ("user", {"type": "image", "source": {"type": "file"}}, "source.type", "invalid_value"),
        (
            *("user", {"type": "image", "source": {"type": "url"}}),
            *("source.url", "missing_required_parameter"),
        ),
        ("user", PDF, "source.type", "unsupported_parameter"),
        ("user", document({"type": "url"}), "source.type", "unsupported_parameter"),
        ("user", document({"type": "odd"}), "source.type", "invalid_value"),
        ("user", document({"type": "text"}), "source.data", "missing_required_parameter"),
        ("user", document({"type": "content"}), "source.content", "invalid_type"),
        ("user", document(None), "source", "invalid_type"),
        ("user", document(PLAIN, title=5), "title", "invalid_type"),
        ("user", document(PLAIN, context=["C"]), "context", "invalid_type"),
        ("user", result("x", is_error="no"), "is_error", "invalid_type"),
        (
            *("user", document({"type": "content", "content": [CALL]})),
            *("source.content[0].type", "invalid_value"),
        ),
        (
            *("user", document(PLAIN, citations={"enabled": True})),
            *("citations", "unsupported_parameter"),
        ),
        ("user", {**FOUND, "title": None}, "title", "missing_required_parameter"),
        ("user", {**FOUND, "content": None}, "content", "invalid_type"),
        ("user", {**FOUND, "content": [IMAGE]}, "content[0].type", "invalid_value"),
        ("user", {**FOUND, "citations": {"enabled": True}}, "citations", "unsupported_parameter"),
        (
            *("user", {"type": "tool_result", "content": "x"}),
            *("tool_use_id", "missing_required_parameter"),
        ),
        ("user", result([CALL]), "content[0].type", "invalid_value"),
        ("user", result([PDF]), "content[0].source.type", "unsupported_parameter"),
    ],
)
def test_blocks_are_refused_by_the_field_that_is_wrong(
    role: str, block: Block, param: str, code: str
) -> None:
    """Also those inside of others."""
    with pytest.raises(RefusedRequest) as refused:
        adopt_messages([{"role": role, "content": [block]}])
    assert refused.value.param == f"messages[0].content[0].{param}"
    assert refused.value.code == code


@pytest.mark.parametrize("system", [None, "Be brief.", [], [HI, HI]])
def test_a_system_prompt_is_text(system: object) -> None:
    """A string, or blocks of text."""
    check_system(system)


@pytest.mark.parametrize(
    ("system", "param"), [(5, "system"), ([IMAGE], "system[0].type"), (["x"], "system[0]")]
)
def test_a_system_prompt_that_is_none_is_refused(system: object, param: str) -> None:
    """By its place."""
    with pytest.raises(RefusedRequest) as refused:
        check_system(system)
    assert refused.value.param == param
