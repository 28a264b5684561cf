"""Input items of the Responses API, in the forms that vLLM renders whole."""

import base64
from typing import Any

import pytest

from deployments.engines.vllm.api.oldest_items import without_oldest
from deployments.engines.vllm.api.refused_request import RefusedRequest
from deployments.engines.vllm.api.responses_input import vllm_input
from gateway.request.reasoning_token import make_token, open_token

USER = {"type": "message", "role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "1"}


def file(data: bytes, **fields: str) -> dict[str, str]:
    """A part with a file in it."""
    url = f"data:text/plain;base64,{base64.b64encode(data).decode()}"
    return {"type": "input_file", "file_data": url, **fields}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a", "a"),
        ([], ""),
        ([{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}], "ab"),
    ],
)
def test_what_an_assistant_said_is_one_text(content: Any, text: str) -> None:
    """With and without a type, an id or annotations."""
    (item,) = vllm_input([{"role": "assistant", "content": content}])
    assert item["content"] == [{"type": "output_text", "text": text, "annotations": []}]
    assert item["status"] == "completed"


def test_files_of_text_are_read() -> None:
    """Their name comes first."""
    parts = [file(b"hello", filename="a.txt")]
    (item,) = vllm_input([{"role": "user", "content": parts}])
    assert item["content"] == [{"type": "input_text", "text": "a.txt:\nhello"}]


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "input[0]", "invalid_value"),
        ({"type": "web_search_call", "id": "ws_1"}, "input[0]", "invalid_value"),
        ({"content": "x"}, "input[0].type", "missing_required_parameter"),
        ({"role": "nobody", "content": "x"}, "input[0].role", "invalid_value"),
        ({"role": "user"}, "input[0].content", "missing_required_parameter"),
        ({"role": "user", "content": [{"type": "x"}]}, "input[0].content[0]", "invalid_value"),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
            "input[0].content[0].file_id",
            "unsupported_parameter",
        ),
        (
            {"role": "user", "content": [file(b"\xff\xfe")]},
            "input[0].content[0].file_data",
            "unsupported_parameter",
        ),
        ({**CALL, "name": None}, "input[0].name", "missing_required_parameter"),
        (
            {"type": "reasoning", "encrypted_content": "gAAA"},
            "input[0].encrypted_content",
            "invalid_encrypted_content",
        ),
        ("hi", "input[0]", "invalid_type"),
    ],
)
def test_items_that_cannot_be_rendered_are_refused(item: object, param: str, code: str) -> None:
    """By the name of the field that is at fault."""
    with pytest.raises(RefusedRequest) as refused:
        vllm_input([item])
    assert (refused.value.param, refused.value.code) == (param, code)


def test_a_token_brings_reasoning_back() -> None:
    """It stands for the text of the item that it came with."""
    token = make_token("because")
    (item,) = vllm_input([{"type": "reasoning", "id": "rs_1", "encrypted_content": token}])
    assert item["content"] == [{"type": "reasoning_text", "text": "because"}]
    assert open_token("rt1_!") is None


def test_the_oldest_items_go_and_instructions_stay() -> None:
    """Results go with their calls, and the last item never goes."""
    system = {"type": "message", "role": "system", "content": "Be."}
    items = [system, USER, CALL, OUTPUT, USER]
    assert without_oldest(items, 0) == items
    assert without_oldest(items, 1) == [system, CALL, OUTPUT, USER]
    assert without_oldest(items, 2) == [system, USER]
    assert without_oldest(items, 9) == [system, USER]
