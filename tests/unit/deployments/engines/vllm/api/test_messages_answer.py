"""Whole messages as Anthropic writes them."""

from types import SimpleNamespace
from typing import Any

import pytest

from deployments.engines.vllm.api.asked_message import AskedMessage
from deployments.engines.vllm.api.messages_answer import (
    PromptCounts,
    message_object,
    stop_of,
    usage_object,
    use_id,
)
from gateway.request.reasoning_token import open_token
from tests.unit.deployments.engines.vllm.api.message_parts import call, usage

ASKED = AskedMessage()


def answer(
    content: str | None = "Hello!",
    *,
    reasoning: str | None = None,
    calls: Any = None,
    finish_reason: str = "stop",
    stop: int | str | None = None,
    **fields: object,
) -> Any:
    """VLLM's answer to a chat."""
    message = SimpleNamespace(content=content, reasoning=reasoning, tool_calls=calls)
    choice = SimpleNamespace(message=message, finish_reason=finish_reason, stop_reason=stop)
    counts = usage(cached=4)
    return SimpleNamespace(id="chatcmpl-1", model="m", choices=[choice], usage=counts, **fields)


def test_a_message_has_anthropics_fields() -> None:
    """Ids of Anthropic's kind, and tokens of the cache apart from the others."""
    assert message_object(answer(), AskedMessage(tier="batch")) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hello!"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 6,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
            "service_tier": "batch",
        },
    }


def test_blocks_come_in_the_order_of_the_model() -> None:
    """Thoughts, text, uses of tools; arguments that are cut go as far as they go."""
    calls = [call("chatcmpl-tool-1", "f", '{"a": 1}'), call("functions.g:0", "g", '{"b": "cu')]
    found = message_object(answer("So:", reasoning="Hm.", calls=calls), ASKED)
    thought, text, *uses = found["content"]
    assert (thought["type"], thought["thinking"]) == ("thinking", "Hm.")
    assert thought["signature"]
    assert text == {"type": "text", "text": "So:"}
    assert uses == [
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "functions.g:0", "name": "g", "input": {"b": "cu"}},
    ]
    assert found["stop_reason"] == "tool_use"


def test_thoughts_that_are_left_out_are_in_their_signature() -> None:
    """So that the client can send them back."""
    hidden = message_object(answer(reasoning="Hm."), AskedMessage(hides_thinking=True))
    block = hidden["content"][0]
    assert block["thinking"] == ""
    assert open_token(block["signature"]) == "Hm."


@pytest.mark.parametrize("content", ["", None])
def test_an_answer_of_no_tokens_has_an_empty_block(content: str | None) -> None:
    """Clients read the first one."""
    found = message_object(answer(content, finish_reason="length"), ASKED)
    assert found["content"] == [{"type": "text", "text": ""}]
    assert found["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("arguments", ["", "[1]", "}"])
def test_an_input_is_always_an_object(arguments: str) -> None:
    """Whatever the model has written."""
    found = message_object(answer(None, calls=[call("c", "f", arguments)]), ASKED)
    assert found["content"][0]["input"] == {}


def test_what_others_need_of_vllms_answer_stays() -> None:
    """Where it has a value."""
    found = message_object(answer(kv_transfer_params={"a": 1}, ec_transfer_params=None), ASKED)
    assert found["kv_transfer_params"] == {"a": 1}
    assert "ec_transfer_params" not in found


@pytest.mark.parametrize(
    ("finish_reason", "stop", "has_calls", "is_call_whole", "expected"),
    [
        ("stop", None, False, False, ("end_turn", None)),
        ("stop", 7, False, False, ("end_turn", None)),
        ("stop", "END", False, False, ("stop_sequence", "END")),
        ("length", "END", True, True, ("max_tokens", None)),
        ("tool_calls", None, True, True, ("tool_use", None)),
        ("stop", None, True, False, ("tool_use", None)),
        ("stop", "END", True, True, ("tool_use", None)),
        ("stop", "END", True, False, ("stop_sequence", "END")),
    ],
)
def test_why_an_answer_has_ended(
    finish_reason: str,
    stop: int | str | None,
    has_calls: bool,
    is_call_whole: bool,
    expected: tuple[str, str | None],
) -> None:
    """A call that a stop sequence has cut must not be run."""
    found = stop_of(finish_reason, stop, has_calls=has_calls, is_call_whole=is_call_whole)
    assert found == expected


def test_usage_is_never_negative_and_tells_of_thoughts() -> None:
    """What engines count twice is not taken off twice."""
    found = usage_object(PromptCounts(10, 8, 4), usage(thought=3))
    assert found["input_tokens"] == 0
    assert found["output_tokens_details"] == {"thinking_tokens": 3}
    assert usage_object(PromptCounts(10), None)["output_tokens"] == 0


def test_ids_of_uses_are_anthropics() -> None:
    """Those that a model has to see again stay as they are."""
    assert use_id("chatcmpl-tool-1a") == "toolu_1a"
    assert use_id("functions.f:0") == "functions.f:0"
