"""Streamed answers as a load test reads them."""

import json

import pytest

from loadtests.users.answer import Answer, Broken, reason_of


def event(document: object) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def piece(**delta: object) -> bytes:
    """A chunk of a chat."""
    return event({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def read(*events: bytes) -> Answer:
    """An answer whose events come a second apart, from 1 on."""
    answer = Answer()
    for now_s, each in enumerate(events, start=1):
        answer.read(each, float(now_s))
    return answer


USAGE = event(
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 90,
            "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 64},
        },
    }
)
DONE = b"data: [DONE]\n\n"


def test_tokens_are_timed() -> None:
    """The first is the first with something in it; usage counts what came in one event."""
    answer = read(
        piece(role="assistant", content=""),
        b": the model starts\n\n",
        piece(content="Once "),
        piece(content="upon a time"),
        USAGE,
        DONE,
    )

    assert answer.is_done
    assert answer.text == "Once upon a time"
    assert answer.first_s == 3
    assert answer.itl_s == pytest.approx(1 / 3)
    assert answer.usage.prompt_tokens == 90
    assert answer.usage.cached_tokens == 64


@pytest.mark.parametrize("delta", ["reasoning", "reasoning_content", "tool_calls"])
def test_thoughts_and_tool_calls_are_tokens_too(delta: str) -> None:
    """Though they are not part of what is said."""
    answer = read(piece(**{delta: [{"index": 0}] if delta == "tool_calls" else "Hm"}), USAGE)

    assert answer.first_s == 1
    assert not answer.text


def test_servers_may_say_less() -> None:
    """Without usage there is no pace, without cached tokens there are none."""
    answer = read(piece(content="a"), piece(content="b"), event({"choices": [], "usage": None}))
    assert answer.itl_s is None

    answer.read(event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}), 9.0)
    assert answer.itl_s is None
    assert answer.usage.cached_tokens == 0
    assert not answer.is_done


def test_an_error_event_breaks_an_answer() -> None:
    """Its reason is told."""
    error = {"error": {"message": "The engine was lost.", "type": "server_error", "code": "lost"}}

    with pytest.raises(Broken, match=r"error event: lost: The engine was lost\."):
        read(piece(content="a"), event(error))


def test_what_is_no_event_breaks_an_answer() -> None:
    """Such as half of one."""
    with pytest.raises(Broken, match="an event that is not one"):
        read(b'data: {"choices": [{"del\n\n')


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"message": "Too long.", "type": "x", "code": null}}', "x: Too long."),
        (b'{"error": {"message": "Too long."}}', "Too long."),
        (b"<html>\r\n  Bad gateway\n</html>", "<html> Bad gateway </html>"),
        (b'{"error": {"message": "Too\\nlong."}}', "Too long."),
        (b"", ""),
    ],
)
def test_reasons_are_told_in_one_line(body: bytes, reason: str) -> None:
    """Of errors in OpenAI's shape and of all others."""
    assert reason_of(body) == reason
