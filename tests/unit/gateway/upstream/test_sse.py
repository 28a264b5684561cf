"""Server-sent events: buffered until whole, and ended as each API does."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors.upstream import UpstreamFailed
from gateway.upstream.sse import EVENT_LIMIT, EventBuffer, error_event, event_data, split_events

BROKEN = UpstreamFailed("The engine broke off.")


@given(
    st.lists(st.sampled_from([b"data: x", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b":"])),
    st.sets(st.integers(0, 100)),
)
def test_only_whole_events_are_released_unchanged(pieces: list[bytes], cuts: set[int]) -> None:
    """However a stream is split, released bytes end with an event; none are lost or added."""
    raw = b"".join(pieces)
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    buffer = EventBuffer()
    released = [buffer.feed(raw[start:end]) for start, end in pairwise(edges)]
    assert all(part == b"" or part.endswith((b"\n\n", b"\r\n\r\n")) for part in released)
    buffered = buffer.flush()
    assert b"".join(released) + buffered == raw
    assert b"\n\n" not in buffered
    assert b"\r\n\r\n" not in buffered


def test_discarding_drops_half_an_event() -> None:
    """After a break within an event, a new event may follow at once."""
    buffer = EventBuffer()
    assert buffer.feed(b'data: 1\n\ndata: {"half') == b"data: 1\n\n"
    assert buffer.discard_partial() == b""
    assert buffer.flush() == b""


def test_an_oversized_event_is_released_in_pieces_and_ended_when_discarded() -> None:
    """An event over the limit is not buffered for ever; if it breaks, it is ended first."""
    buffer = EventBuffer()
    huge = b"data: " + b"x" * EVENT_LIMIT
    assert buffer.feed(huge) == huge
    assert buffer.discard_partial() == b"\n\n"
    assert buffer.feed(b"\n\n") == b"\n\n"
    assert buffer.discard_partial() == b""


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_broken_completion_ends_with_an_error_and_done(path: str) -> None:
    """OpenAI's streams get the error as data, and then their usual end."""
    data, done, rest = error_event(BROKEN, path, b"").split(b"\n\n")
    assert json.loads(data.removeprefix(b"data: ")) == json.loads(BROKEN.body())
    assert (done, rest) == (b"data: [DONE]", b"")


def test_a_broken_message_ends_with_anthropics_error_event() -> None:
    """Anthropic's streams get an event of the name and shape its SDK raises for."""
    event, data, end = error_event(BROKEN, "/v1/messages", b"").split(b"\n", 2)
    assert (event, end) == (b"event: error", b"\n")
    body = json.loads(data.removeprefix(b"data: "))
    assert (body["type"], body["error"]["message"]) == ("error", BROKEN.message)


@pytest.mark.parametrize(
    ("last", "number"),
    [
        (b"", 0),
        (b'data: {"sequence_number": 7}\n\ndata: {"sequence_number":8}\n\n', 9),
        (b'data: {"sequence_number":3,"delta":"\\"sequence_number\\":99"}\n\n', 4),
    ],
)
def test_a_broken_response_ends_with_a_numbered_error_event(last: bytes, number: int) -> None:
    """The Responses API's error event continues the numbering of the stream."""
    event, data, end = error_event(BROKEN, "/v1/responses", last).split(b"\n", 2)
    assert (event, end) == (b"event: error", b"\n")
    body = json.loads(data.removeprefix(b"data: "))
    assert body == {
        "type": "error",
        "code": "upstream_failed",
        "message": BROKEN.message,
        "param": None,
        "sequence_number": number,
        "error": json.loads(BROKEN.body())["error"],
    }


@pytest.mark.parametrize(
    ("events", "payloads"),
    [
        (b"", []),
        (b"data: 1\n\ndata:2\n\n", [b"1", b"2"]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"]),
        (b"data: 1\r\n\r\ndata: 2\n\n", [b"1", b"2"]),
        (b"event: e\ndata: 1\nid: 3\n\n", [b"1"]),
        (b"data: 1\ndata: 2\n\n", [b"1\n2"]),
        (b": comment\n\nevent: e\n\n", [b"", b""]),
    ],
)
def test_events_are_split_and_their_data_extracted(events: bytes, payloads: list[bytes]) -> None:
    """All kinds of line ends are understood."""
    assert [event_data(event) for event in split_events(events)] == payloads
