"""The decoder of compressed bodies: what it reads, what it refuses, and how much it may produce."""

import asyncio
import gzip
import os
import tracemalloc
import zlib
from collections.abc import Callable, Sequence

import pytest

from gateway.errors.limits import BodyBudgetExceeded
from gateway.errors.request import BodyTooLarge, InvalidEncoding, UnsupportedEncoding
from gateway.serving.body_budget import MIB, BodyBudget
from gateway.serving.content_encoding import (
    DECODERS,
    MAX_MEMBERS,
    PIECE,
    WINDOW,
    decode_body,
    parse_encodings,
    zstd,
)

BODY = b'{"model":"m","prompt":"' + os.urandom(300_000).hex().encode() + b'"}'
WITH_ZSTD = pytest.mark.skipif(zstd is None, reason="backports.zstd is not installed")


def raw_deflate(data: bytes) -> bytes:
    """Deflate without a header, as many clients send it."""
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def zstd_compress(data: bytes) -> bytes:
    """One zstd frame."""
    return bytes(zstd.compress(data))


ENCODERS = [
    pytest.param(b"gzip", gzip.compress, id="gzip"),
    pytest.param(b"deflate", zlib.compress, id="zlib"),
    pytest.param(b"deflate", raw_deflate, id="raw deflate"),
    pytest.param(b"zstd", zstd_compress, id="zstd", marks=WITH_ZSTD),
]
Encoder = Callable[[bytes], bytes]


def decoded(body: bytes, encodings: Sequence[bytes], limit_mb: float = 32) -> bytes:
    """The body, decoded under a budget of its own; checks what it holds in the end."""

    async def run() -> bytes:
        with BodyBudget(lambda: 1 << 40).open(b"") as held:
            held.grow(len(body))
            result = await decode_body(body, encodings, limit_mb, held)
            assert held.size == len(result)
            return result

    return asyncio.run(run())


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS)
@pytest.mark.parametrize("body", [BODY, b"{}", b"", b"x" * WINDOW, b"y" * (2 * WINDOW)])
def test_a_body_is_decoded(encoding: bytes, encode: Encoder, body: bytes) -> None:
    """Every supported encoding yields what was encoded, whatever its length."""
    assert decoded(encode(body), [encoding]) == body


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS)
def test_an_incomplete_body_is_refused(encoding: bytes, encode: Encoder) -> None:
    """Wherever it is cut, a body without its end is no body."""
    whole = encode(b'{"model":"m"}' * 100)
    for end in range(len(whole)):
        with pytest.raises(InvalidEncoding):
            decoded(whole[:end], [encoding])


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS)
def test_more_after_the_end_is_refused(encoding: bytes, encode: Encoder) -> None:
    """What follows the end is no part of the body and is not dropped in silence."""
    with pytest.raises(InvalidEncoding):
        decoded(encode(b"{}") + b"more", [encoding])


@pytest.mark.parametrize("size", [1, 512, 3 * PIECE])
def test_gzip_may_be_padded_with_zeros(size: int) -> None:
    """As tapes and blocks are; anything behind them is refused."""
    padded = gzip.compress(BODY) + bytes(size)
    assert decoded(padded, [b"gzip"]) == BODY
    for more in (b"x", gzip.compress(b"{}")):
        with pytest.raises(InvalidEncoding):
            decoded(padded + more, [b"gzip"])


@pytest.mark.parametrize("encoding", list(DECODERS))
def test_a_body_that_is_not_encoded_is_refused(encoding: bytes) -> None:
    """A header that promises what is not there."""
    with pytest.raises(InvalidEncoding, match=encoding.decode()):
        decoded(b'{"model":"m"}', [encoding])


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS)
def test_a_bomb_is_refused_at_the_limit(encoding: bytes, encode: Encoder) -> None:
    """A body that becomes too large is given up at the limit, and nothing more is decoded."""
    bomb = encode(bytes(64 * MIB))
    tracemalloc.start()
    with pytest.raises(BodyTooLarge):
        decoded(bomb, [encoding], limit_mb=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MIB


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS)
def test_a_few_bytes_do_not_become_megabytes(encoding: bytes, encode: Encoder) -> None:
    """The ratio is limited, too; the first MiB is free."""
    with pytest.raises(BodyTooLarge, match="200 times"):
        decoded(encode(bytes(8 * MIB)), [encoding])
    assert len(decoded(encode(bytes(MIB)), [encoding])) == MIB


def test_encodings_are_undone_in_reverse() -> None:
    """The last encoding was applied last."""
    assert decoded(gzip.compress(zlib.compress(BODY)), [b"deflate", b"gzip"]) == BODY


def test_members_are_joined_but_not_without_end() -> None:
    """A gzip body may have several members; each costs time, so their number is limited."""
    assert decoded(gzip.compress(b"{") + gzip.compress(b"}"), [b"gzip"]) == b"{}"
    with pytest.raises(InvalidEncoding):
        decoded(gzip.compress(b"") * (MAX_MEMBERS + 1), [b"gzip"])


def test_a_decoded_body_counts_for_the_budget() -> None:
    """What a body becomes is held, not what was sent."""

    async def run() -> None:
        with BodyBudget(lambda: MIB).open(b"") as held:
            await decode_body(gzip.compress(bytes(MIB)), [b"gzip"], 32, held)

    with pytest.raises(BodyBudgetExceeded):
        asyncio.run(run())


def test_others_get_their_turn_meanwhile() -> None:
    """The event loop is not held for a whole large body."""

    async def run() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        with BodyBudget(lambda: 1 << 40).open(b"") as held:
            await decode_body(gzip.compress(BODY * 20), [b"gzip"], 32, held)
        counting.cancel()
        return turns

    windows_mb = 2 * WINDOW / MIB  # a window may overshoot by almost another one
    assert asyncio.run(run()) >= 20 * len(BODY) / MIB / windows_mb


@pytest.mark.parametrize(
    ("values", "encodings"),
    [
        ((b"gzip",), [b"gzip"]),
        ((b" GZip ",), [b"gzip"]),
        ((b"x-gzip",), [b"gzip"]),
        ((b"identity",), []),
        ((b"",), []),
        ((b"deflate, identity,gzip",), [b"deflate", b"gzip"]),
        ((b"deflate", b"gzip"), [b"deflate", b"gzip"]),
    ],
)
def test_encodings_are_parsed(values: tuple[bytes, ...], encodings: list[bytes]) -> None:
    """Lists, repeated headers, case, blanks and `identity` are read as HTTP has them."""
    assert parse_encodings([(b"content-encoding", value) for value in values]) == encodings


@pytest.mark.parametrize(
    "value", [b"br", b"gzip, br", b"gzip;q=1", b"\xff", b"gzip," * 5 + b"gzip"]
)
def test_an_unknown_encoding_is_refused(value: bytes) -> None:
    """The client learns which ones are supported."""
    with pytest.raises(UnsupportedEncoding) as refused:
        parse_encodings([(b"content-encoding", value)])
    headers = dict(refused.value.headers)
    assert headers[b"accept-encoding"].startswith(b"gzip, deflate")
    assert headers[b"connection"] == b"close"
