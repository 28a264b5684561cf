"""The words between engines and routers, as bytes."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import (
    FRAME_LIMIT,
    Dispatch,
    Finished,
    Load,
    Update,
    UpdateReader,
    encode_update,
)

KEYS = st.binary(max_size=40)
IDS = st.integers(0, 2**64 - 1)
COUNTS = st.integers(0, 2**40)
SECONDS = st.floats(0, 1e6)

LOADS = st.builds(Load, running=COUNTS, waiting=COUNTS, pending_tokens=COUNTS, free_tokens=COUNTS)
FINISHED = st.builds(
    Finished,
    id=IDS,
    prompt_tokens=COUNTS,
    cached_tokens=COUNTS,
    completion_tokens=COUNTS,
    prompt_bytes=COUNTS,
    queue_s=SECONDS,
    prefill_s=SECONDS,
    decode_s=SECONDS,
    running=SECONDS,
    is_aborted=st.booleans(),
)
UPDATES = st.builds(
    Update,
    is_snapshot=st.booleans(),
    added=KEYS,
    added_tokens=KEYS,
    dropped=KEYS,
    accepted=st.lists(IDS, max_size=4),
    finished=st.lists(FINISHED, max_size=3),
    load=st.none() | LOADS,
    is_draining=st.booleans(),
    stalled_s=SECONDS,
)
DISPATCHES = st.builds(
    Dispatch,
    id=IDS,
    keys=st.lists(st.binary(min_size=8, max_size=8), max_size=5).map(b"".join),
    key_bytes=COUNTS,
    prompt_bytes=COUNTS,
    seed=IDS,
    reply_start=st.none() | st.binary(max_size=40),
    is_token_ids=st.booleans(),
    priority=st.integers(-(2**63), 2**63 - 1),
    answered_bytes=COUNTS,
)


@given(DISPATCHES)
def test_a_dispatch_arrives_as_it_was_sent(dispatch: Dispatch) -> None:
    """What a router says of a request, an engine reads, and it may stand in a header."""
    header = dispatch.encode()
    assert Dispatch.decode(header) == dispatch
    assert header.isascii()
    assert b"\n" not in header


@given(st.binary(max_size=60))
def test_a_header_that_is_no_dispatch(value: bytes) -> None:
    """Anything else in the header is a ValueError, or happens to be a dispatch."""
    with contextlib.suppress(ValueError):
        assert isinstance(Dispatch.decode(value), Dispatch)


@pytest.mark.parametrize("value", [b"", b"AAAA", b"not base64!", b"\xff\xff", b"kwE="])
def test_these_are_no_dispatches(value: bytes) -> None:
    """Nothing, nulls, other text, bytes that no header has, and a list too short."""
    with pytest.raises(ValueError, match=r"."):
        Dispatch.decode(value)


def test_half_a_key_is_no_dispatch() -> None:
    """Keys come whole."""
    with pytest.raises(ValueError, match="key"):
        Dispatch.decode(Dispatch(id=1, keys=b"1234567").encode())


@given(st.lists(UPDATES, max_size=4), st.data())
def test_frames_survive_any_split(updates: list[Update], data: st.DataObject) -> None:
    """However the bytes of a stream are cut, the same frames come out, each as soon as it can."""
    stream = b"".join(map(encode_update, updates))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    reader, read = UpdateReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        read += reader.feed(stream[start:end])
    assert read == updates


def test_frames_survive_every_split_in_two() -> None:
    """At every place of a stream, also inside a frame's length."""
    load = Load(running=1, waiting=2, pending_tokens=3, free_tokens=4)
    updates = [Update(is_snapshot=True, added=b"12345678"), Update(), Update(load=load)]
    stream = b"".join(map(encode_update, updates))
    for cut in range(len(stream) + 1):
        reader = UpdateReader()
        assert reader.feed(stream[:cut]) + reader.feed(stream[cut:]) == updates


def test_frames_survive_byte_by_byte() -> None:
    """A frame is there with its last byte and not before."""
    frame = encode_update(Update(accepted=[1, 2, 3]))
    reader = UpdateReader()
    *early, last = [reader.feed(frame[i : i + 1]) for i in range(len(frame))]
    assert not any(early)
    assert last == [Update(accepted=[1, 2, 3])]


def test_a_frame_longer_than_any() -> None:
    """A length that no engine would send is refused before it is waited for."""
    with pytest.raises(ValueError, match="bytes"):
        UpdateReader().feed((FRAME_LIMIT + 1).to_bytes(4))


@given(st.binary(min_size=1, max_size=64))
def test_a_frame_of_garbage(body: bytes) -> None:
    """What is no update is a ValueError, whatever it is."""
    frame = len(body).to_bytes(4) + body
    with contextlib.suppress(ValueError):
        assert all(isinstance(update, Update) for update in UpdateReader().feed(frame))


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\xc0", b"\x80", b"\x91\x05", b"\x91\xc3\x00", b"HTTP/1.1 200 OK\r\n"]
)
def test_these_are_no_updates(body: bytes) -> None:
    """Nothing, other types, fields of other types, and more than one value in a frame."""
    with pytest.raises(ValueError, match="not an update"):
        UpdateReader().feed(len(body).to_bytes(4) + body)


def test_fields_of_later_versions_are_left_alone() -> None:
    """A frame with more fields, or with fewer, than we know is read as far as we know it."""
    longer = b"\x9b\xc3\xc4\x00\xc4\x00\xc4\x00\x90\x90\xc0\xc2\x00\xc0\x07"
    shorter = b"\x91\xc3"
    for body in (longer, shorter):
        assert UpdateReader().feed(len(body).to_bytes(4) + body) == [Update(is_snapshot=True)]
