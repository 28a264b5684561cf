"""What a client was sent, kept in little memory."""

import json
import tracemalloc
from dataclasses import dataclass

import pytest

from gateway.resume.stream_log import RAW_LIMIT, StreamLog
from gateway.resume.transcript import CONTENT, Channel, Transcript


@dataclass
class Facts:
    """All that a transcript says of a stream with one choice."""

    texts: dict[Channel, str]
    identity: dict[str, bytes]
    logprobs: int
    token_ids: int
    finish_reason: str | None
    has_role: bool
    has_usage: bool
    is_done: bool


def facts(transcript: Transcript) -> Facts:
    """What a transcript says."""
    said = transcript.choices[0]
    return Facts(
        said.texts,
        {name: bytes(value) for name, value in transcript.identity.items()},
        said.logprobs,
        said.token_ids,
        said.finish_reason,
        said.has_role,
        transcript.has_usage,
        transcript.is_done,
    )


def event(delta: object, **more: object) -> bytes:
    """A chunk of a chat."""
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
    chunk = {"id": "x", "created": 5, "model": "m", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=False).encode()


def stream(tokens: int) -> list[bytes]:
    """A stream with something of everything."""
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
def test_reading_early_changes_nothing(size: int) -> None:
    """However much is added at once, and read in between, a transcript says the same."""
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
    """Of twenty megabytes of events little more is kept than their text."""
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


def test_adding_does_not_read() -> None:
    """What is sent is not parsed until it is needed, however much it is."""
    stream_log = StreamLog()
    for _ in range(RAW_LIMIT):
        stream_log.add(b"data: this is no JSON\n\n")
    assert stream_log._transcript.is_readable
    assert not stream_log.transcript.is_readable


@pytest.mark.parametrize(
    ("events", "is_empty", "is_blank"),
    [
        (b"", True, True),
        (b": comment\n\n", True, True),
        (event({"role": "assistant", "content": ""}), False, True),
        (event({"content": None, "reasoning": ""}), False, True),
        (event({"content": " "}), False, False),
        (event({"reasoning_content": "a"}), False, False),
        (event({"refusal": "a"}), False, False),
        (event({"tool_calls": [{"index": 0, "id": "a"}]}), False, False),
        (event({}, token_ids=[1]), False, False),
        (event({}, finish_reason="stop"), False, False),
        (event({"audio": {"id": "a"}}), False, False),
        (b'data: {"choices": [{"index": 0, "text": "a"}]}\r\n\r\n', False, False),
        (b"data: {}\n\n", False, False),
    ],
)
def test_blank_is_what_can_be_said_again(events: bytes, is_empty: bool, is_blank: bool) -> None:
    """Roles and empty deltas are no answer; whatever is not understood may be one."""
    stream_log = StreamLog()
    stream_log.add(events)
    assert (stream_log.transcript.is_empty, stream_log.transcript.is_blank) == (is_empty, is_blank)
