"""Streamed chats as load tests read them."""

import json

import pytest

from loadtests.loadgen.sse import ChatStream, IncompleteStream, error_reason


def event(document: object) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def chunk(**delta: object) -> bytes:
    """A chunk of a chat."""
    return event({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def read(*events: bytes) -> ChatStream:
    """A stream whose events come a second apart, from 1 on."""
    stream = ChatStream()
    for now_s, each in enumerate(events, start=1):
        stream.read(each, float(now_s))
    return stream


CACHED = {"prompt_tokens": 90, "completion_tokens": 4, "prompt_tokens_details": {}}
CACHED["prompt_tokens_details"] = {"cached_tokens": 64}


def test_tokens_are_timed_and_usage_is_kept() -> None:
    """The first token is the first event with content; comments and the role are none."""
    stream = read(
        chunk(role="assistant", content=""),
        b": the model starts\n\n",
        chunk(content="Once "),
        chunk(content="upon a time"),
        event({"choices": [], "usage": CACHED}),
        b"data: [DONE]\n\n",
    )

    assert stream.is_done
    assert stream.text == "Once upon a time"
    assert stream.first_token_s == 3
    assert stream.itl_s == pytest.approx(1 / 3)
    assert (stream.usage.prompt_tokens, stream.usage.cached_tokens) == (90, 64)


@pytest.mark.parametrize("delta", ["reasoning", "reasoning_content", "tool_calls"])
def test_reasoning_and_tool_calls_count_as_tokens(delta: str) -> None:
    """They are timed, but are not part of the text."""
    stream = read(chunk(**{delta: [{"index": 0}] if delta == "tool_calls" else "Hm"}))

    assert stream.first_token_s == 1
    assert not stream.text


def test_usage_may_be_missing_or_shorter() -> None:
    """Without it there is no ITL, without details no cached tokens."""
    stream = read(chunk(content="a"), chunk(content="b"), event({"choices": [], "usage": None}))
    assert stream.itl_s is None

    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    stream.read(event({"choices": [], "usage": usage}), 9.0)
    assert stream.itl_s is None
    assert stream.usage.cached_tokens == 0
    with pytest.raises(IncompleteStream, match=r"without \[DONE\]"):
        stream.require_end()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (event({"error": {"message": "Lost.", "code": "lost"}}), r"error event: lost: Lost\."),
        (b'data: {"choices": [{"del\n\n', "malformed event"),
    ],
)
def test_an_error_event_or_half_an_event_breaks_a_stream(broken: bytes, reason: str) -> None:
    """The reason is kept."""
    with pytest.raises(IncompleteStream, match=reason):
        read(chunk(content="a"), broken)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"message": "Too long.", "type": "x", "code": null}}', "x: Too long."),
        (b'{"error": {"message": "Too\\nlong."}}', "Too long."),
        (b"<html>\r\n  Bad gateway\n</html>", "<html> Bad gateway </html>"),
        (b"", ""),
    ],
)
def test_an_error_body_becomes_one_line(body: bytes, reason: str) -> None:
    """Whether or not it has OpenAI's shape."""
    assert error_reason(body) == reason
