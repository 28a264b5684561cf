"""Telemetry frames: how they are encoded, and read from a stream."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.update import (
    FRAME_LIMIT,
    Finished,
    Load,
    Update,
    UpdateReader,
    encode_update,
    pack_keys,
    pack_tokens,
    unpack_keys,
    unpack_tokens,
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


@given(st.lists(UPDATES, max_size=4), st.data())
def test_frames_survive_any_split(updates: list[Update], data: st.DataObject) -> None:
    """However a stream is cut, the same frames come out, each as soon as it is complete."""
    stream = b"".join(map(encode_update, updates))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    reader, read = UpdateReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        read += reader.feed(stream[start:end])
    assert read == updates


def test_frames_survive_every_split_in_two() -> None:
    """A stream may be cut anywhere, even inside a frame's length."""
    load = Load(running=1, waiting=2, pending_tokens=3, free_tokens=4)
    updates = [Update(is_snapshot=True, added=b"12345678"), Update(), Update(load=load)]
    stream = b"".join(map(encode_update, updates))
    for cut in range(len(stream) + 1):
        reader = UpdateReader()
        assert reader.feed(stream[:cut]) + reader.feed(stream[cut:]) == updates


def test_frames_may_arrive_byte_by_byte() -> None:
    """A frame is returned with its last byte and not before."""
    frame = encode_update(Update(accepted=[1, 2, 3]))
    reader = UpdateReader()
    *early, last = [reader.feed(frame[i : i + 1]) for i in range(len(frame))]
    assert not any(early)
    assert last == [Update(accepted=[1, 2, 3])]


def test_an_oversized_frame_is_rejected() -> None:
    """A length that no engine would send is rejected without waiting for its bytes."""
    with pytest.raises(ValueError, match="bytes"):
        UpdateReader().feed((FRAME_LIMIT + 1).to_bytes(4))


@given(st.binary(min_size=1, max_size=64))
def test_a_frame_of_garbage_is_a_value_error(body: bytes) -> None:
    """Arbitrary bytes in a frame raise ValueError, unless they happen to be an update."""
    frame = len(body).to_bytes(4) + body
    with contextlib.suppress(ValueError):
        assert all(isinstance(update, Update) for update in UpdateReader().feed(frame))


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\xc0", b"\x80", b"\x91\x05", b"\x91\xc3\x00", b"HTTP/1.1 200 OK\r\n"]
)
def test_an_invalid_update_is_a_value_error(body: bytes) -> None:
    """Empty frames, other types, wrong field types and several values are rejected."""
    with pytest.raises(ValueError, match="not an update"):
        UpdateReader().feed(len(body).to_bytes(4) + body)


def test_fields_of_later_versions_are_ignored() -> None:
    """A frame with additional or missing fields is decoded as far as it is known."""
    known = msgspec.msgpack.decode(msgspec.msgpack.encode(Update(is_snapshot=True)))
    longer = msgspec.msgpack.encode([*known, 7])
    shorter = b"\x91\xc3"
    for body in (longer, shorter):
        assert UpdateReader().feed(len(body).to_bytes(4) + body) == [Update(is_snapshot=True)]


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**32 - 1)))
def test_packed_keys_and_tokens_unpack_to_the_same(keys: list[int], tokens: list[int]) -> None:
    """Keys of 64 bits and token counts of 32 bits survive a round trip."""
    assert list(unpack_keys(pack_keys(keys))) == keys
    assert list(unpack_tokens(pack_tokens(tokens))) == tokens


def test_a_truncated_key_or_token_count_is_rejected() -> None:
    """Bytes that are not a whole number of items raise."""
    with pytest.raises(ValueError, match="multiple"):
        unpack_keys(b"1234567")
    with pytest.raises(ValueError, match="multiple"):
        unpack_tokens(b"123")
