"""The table of requests, against a server that answers as a test wants it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from conformance.http_answers import Answer
from conformance.requests_table import TableCase, TableGroup, TableRow, read_stream, table_cases
from tests.http_server import Handler, serving

COUNT = {"object": "response.input_tokens", "input_tokens": 5}


@contextmanager
def answering(body: object, status: int = 200) -> Iterator[str]:
    """A server with one answer for everybody."""

    class Answering(Handler):
        def post(self) -> None:
            self.answer(status, json.dumps(body).encode(), {"content-type": "application/json"})

    with serving(Answering) as port:
        yield f"http://127.0.0.1:{port}"


def case(**fields: Any) -> TableCase:
    """A row of the table."""
    row = TableRow.model_validate({"name": "a", **fields})
    group = TableGroup(name="g", route="POST /x", shape="input_tokens", requests=[row])
    return TableCase(group, row)


def test_the_table_has_many_requests_with_names_of_their_own() -> None:
    """A name that stands twice would hide one of its requests."""
    names = [case.name for case in table_cases()]

    assert len(names) >= 120
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"value": {"input_tokens": 5}}, []),
        ({"value": {"input_tokens": "~^[0-9]$"}, "has": ["object"]}, []),
        ({"value": {"input_tokens": 6}}, ["input_tokens: 5, not 6"]),
        ({"value": {"other": "~."}}, ["other: missing, not '~.'"]),
        ({"has": ["other"]}, ["other: missing"]),
        ({"hasnt": ["object"]}, ["object: 'response.input_tokens', should not be there"]),
        ({"answered": {"x-a": "b"}}, ["header x-a: None, not 'b'"]),
    ],
)
def test_values_and_headers_are_compared(fields: dict[str, object], wrong: list[str]) -> None:
    """Literals, patterns, presence and absence."""
    with answering(COUNT) as url:
        assert case(**fields).deviations(url) == wrong


def test_another_status_is_told_with_the_body() -> None:
    """Nothing else is looked at then."""
    with answering({"error": "x"}, status=400) as url:
        (wrong,) = case().deviations(url)

    assert wrong.startswith("status 400, not 200")


def test_a_stream_is_read_as_one_value() -> None:
    """Its text is joined, and what is wrong with its order is told."""
    delta = {"type": "response.output_text.delta", "delta": "x", "sequence_number": 7}
    body = f"event: other\ndata: {json.dumps(delta)}\n\n".encode()

    value, wrong = read_stream(Answer(200, {}, body), "response")

    assert value["text"] == "x"
    assert value["last"] == delta
    assert wrong == [
        "event 'other' has type 'response.output_text.delta'",
        "sequence numbers [7]",
    ]


def test_a_chat_stream_must_end_with_done() -> None:
    """As OpenAI's do."""
    body = b'data: {"choices": []}\n\n'

    assert read_stream(Answer(200, {}, body), "chat")[1] == ["the stream does not end with [DONE]"]
