"""Strict validation against the SDKs' types."""

import pytest

from conformance.shapes import SHAPES, deviations

ERROR = {"message": "m", "type": "t", "param": None, "code": "c"}
CHUNK = {"id": "i", "object": "text_completion", "created": 1, "model": "m"}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, []),
        ({"code": 400}, ["error.code: Input should be a valid string"]),
        ({"hint": "x"}, [".error.hint: no such field"]),
    ],
)
def test_an_error_is_held_against_its_type(fields: dict[str, object], wrong: list[str]) -> None:
    """A number is not taken for a string, and unknown fields are found."""
    assert deviations({"error": {**ERROR, **fields}}, SHAPES["error"].answer) == wrong


def test_an_event_is_held_against_the_type_it_names() -> None:
    """The errors name fields of that one, not of the whole union."""
    event = {"type": "response.output_text.delta", "delta": "x"}

    wrong = deviations(event, SHAPES["response"].event)

    assert "item_id: Field required" in wrong


def test_a_chunk_of_a_text_completion_may_have_no_end() -> None:
    """OpenAI sends `finish_reason: null`, though its types do not allow it."""
    choice = {"index": 0, "text": "x", "logprobs": None, "finish_reason": None}

    assert deviations({**CHUNK, "choices": [choice]}, SHAPES["completion"].event) == []


def test_a_null_that_the_api_has_nowhere_is_found() -> None:
    """The types allow null wherever a field may be absent."""
    chunk = {**CHUNK, "choices": [], "system_fingerprint": None}

    assert deviations(chunk, SHAPES["completion"].event) == [".system_fingerprint: null"]
