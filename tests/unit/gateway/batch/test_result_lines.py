"""Results are written as OpenAI writes them."""

import json

import pytest

from gateway.batch.result_lines import (
    CANCELLED,
    LineUsage,
    answer_line,
    unanswered_line,
    usage_of,
)


def test_an_answer_is_one_line() -> None:
    """Also if its JSON was not; the answer itself is not changed."""
    line = answer_line("é1", 200, "req-1", b'{\n "a": 1.50,\r\n "b": "x\\ny"}')

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    found = json.loads(line)
    assert found.pop("id").startswith("batch_req_")
    assert found == {
        "custom_id": "é1",
        "response": {
            "status_code": 200,
            "request_id": "req-1",
            "body": {"a": 1.5, "b": "x\ny"},
        },
        "error": None,
    }
    assert b"1.50" in line


def test_an_answer_that_is_no_json_becomes_a_text() -> None:
    """The file stays readable."""
    for body in ("<html>", '{"a": 1} x', '{"a": "'):
        found = json.loads(answer_line("1", 502, "r", body.encode() + b"\xff"))
        assert found["response"]["body"] == body + "\ufffd"
    found = json.loads(answer_line("1", 200, "r", b'{"a": "\xff"}'))
    assert found["response"]["body"] == '{"a": "\ufffd"}'


def test_a_line_that_has_not_run_says_why() -> None:
    """With a code, and no response."""
    found = json.loads(unanswered_line("1", CANCELLED))

    assert found["response"] is None
    assert found["error"]["code"] == "batch_cancelled"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            LineUsage(10, 4, 5, 2),
        ),
        (
            {
                "input_tokens": 7,
                "output_tokens": 3,
                "input_tokens_details": {"cached_tokens": 1},
                "output_tokens_details": {"reasoning_tokens": 2},
            },
            LineUsage(7, 1, 3, 2),
        ),
        ({"prompt_tokens": 7, "total_tokens": 7, "prompt_tokens_details": None}, LineUsage(7)),
        (None, LineUsage()),
        ("none", LineUsage()),
    ],
)
def test_usage_is_read_in_all_forms(usage: object, expected: LineUsage) -> None:
    """Of chats, completions, embeddings and responses; whatever else is none."""
    assert usage_of(json.dumps({"usage": usage}).encode()) == expected
    assert usage_of(b"\xff") == LineUsage()
