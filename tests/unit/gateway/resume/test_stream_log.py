"""Log of sent events, kept in little memory."""

import json
import tracemalloc
from dataclasses import dataclass

import pytest

from gateway.resume.stream_log import RAW_LIMIT, StreamLog
from gateway.resume.transcript import Transcript
from gateway.upstream.completion_chunk import CONTENT, Channel


@dataclass
class Facts:
    """Contents of a transcript with one choice."""

    texts: dict[Channel, str]
    identity: dict[str, bytes]
    logprobs: int
    token_ids: int
    finish_reason: str | None
    has_role: bool
    has_usage: bool
    is_done: bool


def facts(transcript: Transcript) -> Facts:
    """Return the contents of a transcript."""
    choice = transcript.choices[0]
    return Facts(
        choice.texts,
        {name: bytes(value) for name, value in transcript.identity.items()},
        choice.logprobs,
        choice.token_ids,
        choice.finish_reason,
        choice.has_role,
        transcript.has_usage,
        transcript.is_done,
    )


def event(delta: object, **more: object) -> bytes:
    """Build a chat chunk."""
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
    chunk = {"id": "x", "created": 5, "model": "m", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=False).encode()


def stream(tokens: int) -> list[bytes]:
    """Build a stream with all kinds of events."""
    call = {"index": 0, "function": {"name": "look", "arguments": "{"}}
    return [
        event({"role": "assistant", "content": ""}),
        *(event({"reasoning": f"für {n}", "content": "日"}, token_ids=[n]) for n in range(tokens)),
        event({"tool_calls": [call]}, logprobs={"content": [{"token": "a"}, {"token": "b"}]}),
        b": a comment\n\n",
        event({}, finish_reason="tool_calls"),
        b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\ndata: [DONE]\n\n',
    ]


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_parsing_early_changes_nothing(size: int) -> None:
    """However events are grouped and parsed in between, the transcript is the same."""
    events = stream(3000)
    stream_log = StreamLog()
    for start in range(0, len(events), size):
        stream_log.add(b"".join(events[start : start + size]))
    assert facts(stream_log.transcript) == Facts(
        texts={
            ("reasoning", 0): "".join(f"für {n}" for n in range(3000)),
            CONTENT: "日" * 3000,
            ("name", 0): "look",
            ("arguments", 0): "{",
        },
        identity={"id": b'"x"', "created": b"5", "model": b'"m"'},
        logprobs=2,
        token_ids=3000,
        finish_reason="tool_calls",
        has_role=True,
        has_usage=True,
        is_done=True,
    )
    assert facts(stream_log.transcript) == facts(stream_log.transcript)


def test_memory_is_bounded_by_the_text() -> None:
    """Twenty megabytes of events take little more memory than their text."""
    token = event({"content": "word "})
    count = 20_000_000 // len(token)
    tracemalloc.start()
    stream_log = StreamLog()
    for _ in range(count):
        stream_log.add(token)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2 * len("word ") * count + 4 * RAW_LIMIT
    assert stream_log.transcript.choices[0].texts == {CONTENT: "word " * count}


def test_adding_does_not_parse() -> None:
    """Events are not parsed until they are needed, however many they are."""
    stream_log = StreamLog()
    for _ in range(RAW_LIMIT):
        stream_log.add(b"data: this is no JSON\n\n")
    assert stream_log._transcript.is_readable
    assert not stream_log.transcript.is_readable


@pytest.mark.parametrize(
    ("events", "is_empty", "has_output"),
    [
        (b"", True, False),
        (b": comment\n\n", True, False),
        (event({"role": "assistant", "content": ""}), False, False),
        (event({"content": None, "reasoning": ""}), False, False),
        (event({"content": " "}), False, True),
        (event({"reasoning_content": "a"}), False, True),
        (event({"refusal": "a"}), False, True),
        (event({"tool_calls": [{"index": 0, "id": "a"}]}), False, True),
        (event({}, token_ids=[1]), False, True),
        (event({}, finish_reason="stop"), False, True),
        (event({"audio": {"id": "a"}}), False, True),
        (b'data: {"choices": [{"index": 0, "text": "a"}]}\r\n\r\n', False, True),
        (b"data: {}\n\n", False, True),
    ],
)
def test_roles_and_empty_deltas_are_no_output(
    events: bytes, is_empty: bool, has_output: bool
) -> None:
    """An event that is not understood may have output."""
    stream_log = StreamLog()
    stream_log.add(events)
    assert (stream_log.transcript.is_empty, stream_log.transcript.has_output) == (
        is_empty,
        has_output,
    )
