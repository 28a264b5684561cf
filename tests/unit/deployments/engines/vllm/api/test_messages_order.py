"""The order of Anthropic's messages."""

from typing import Any

import pytest

from deployments.engines.vllm.api.messages_order import adopt_beginning, check_order
from deployments.engines.vllm.api.refused_request import RefusedRequest

Message = dict[str, Any]
HI: Message = {"role": "user", "content": "hi"}
SAID: Message = {"role": "assistant", "content": "Well."}
NOTE: Message = {"role": "system", "content": "Be brief."}


def calling(*ids: str) -> Message:
    """A message of the assistant with calls."""
    calls = [{"type": "tool_use", "id": id_, "name": "f", "input": {}} for id_ in ids]
    return {"role": "assistant", "content": [{"type": "text", "text": "a"}, *calls]}


def results(*ids: str) -> Message:
    """A message of the user with results."""
    blocks = [{"type": "tool_result", "tool_use_id": id_, "content": "1"} for id_ in ids]
    return {"role": "user", "content": [*blocks, {"type": "text", "text": "b"}]}


@pytest.mark.parametrize(
    "messages",
    [
        [HI],
        [HI, SAID, HI],
        [HI, HI, SAID, SAID, HI],
        [HI, calling("a"), results("a"), calling("b"), results("b")],
        [HI, calling("a", "b"), results("b"), results("a")],
        [HI, calling("a"), calling("b"), results("a", "b")],
        [HI, calling("a"), NOTE, results("a")],
        [NOTE, HI, NOTE],
    ],
)
def test_each_call_has_its_result_in_the_next_turn(messages: list[Message]) -> None:
    """Messages of one role are one turn, and those of the system stand anywhere."""
    check_order(messages)


@pytest.mark.parametrize(
    ("messages", "param", "words"),
    [
        (
            [HI, calling("a"), HI],
            "messages[2]",
            "without `tool_result` blocks immediately after: a",
        ),
        ([HI, calling("a")], "messages[1]", "without `tool_result`"),
        ([HI, calling("a", "b"), results("a")], "messages[2]", "after: b."),
        ([HI, results("a")], "messages[0].content", "unexpected `tool_use_id`"),
        ([HI, SAID, results("a")], "messages[2].content", "unexpected `tool_use_id`"),
        ([HI, calling("a"), results("a"), SAID, results("a")], "messages[4].content", "unexpected"),
        ([HI, calling("a"), results("a", "b")], "messages[2].content", "b. Each"),
    ],
)
def test_calls_and_results_without_each_other_are_refused(
    messages: list[Message], param: str, words: str
) -> None:
    """In the words that agents know."""
    with pytest.raises(RefusedRequest) as refused:
        check_order(messages)
    assert refused.value.param == param
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("last", "content"),
    [
        ("One, two,", "One, two,"),
        ([{"type": "text", "text": "One,"}, {"type": "text", "text": " two"}], "One, two"),
    ],
)
def test_the_last_message_may_begin_the_answer(last: object, content: str) -> None:
    """Its text is one string, which vLLM carries on."""
    messages = [HI, {"role": "assistant", "content": last}]
    assert adopt_beginning(messages)
    found = messages[-1]["content"]
    assert found in (content, [{"type": "text", "text": content}])


def test_thoughts_before_a_beginning_stay() -> None:
    """Before its text."""
    thought = {"type": "thinking", "thinking": "Hm."}
    messages = [HI, {"role": "assistant", "content": [thought, {"type": "text", "text": "a"}]}]
    assert adopt_beginning(messages)
    assert messages[-1]["content"] == [thought, {"type": "text", "text": "a"}]


@pytest.mark.parametrize("content", ["", [], [{"type": "text", "text": ""}]])
def test_an_empty_beginning_is_left_out(content: object) -> None:
    """It begins nothing."""
    messages = [HI, {"role": "assistant", "content": content}]
    assert not adopt_beginning(messages)
    assert messages == [HI]


@pytest.mark.parametrize("messages", [[HI], [HI, SAID, HI], [HI, NOTE]])
def test_other_last_messages_begin_nothing(messages: list[Message]) -> None:
    """The answer is a message of its own."""
    before = list(messages)
    assert not adopt_beginning(messages)
    assert messages == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("One, ", "trailing whitespace"),
        ([{"type": "text", "text": "One\n"}], "trailing whitespace"),
        ([{"type": "thinking", "thinking": "Hm."}], "cannot be `thinking`"),
    ],
)
def test_a_beginning_that_cannot_be_carried_on_is_refused(content: object, words: str) -> None:
    """As Anthropic does."""
    with pytest.raises(RefusedRequest) as refused:
        adopt_beginning([HI, {"role": "assistant", "content": content}])
    assert refused.value.param == "messages[1]"
    assert words in refused.value.message
