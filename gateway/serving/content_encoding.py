"""Decoder of compressed request bodies: gzip, deflate and zstd, several of them if need be.

Bounded in what a few bytes may become: in all, by the limit for bodies; in proportion, by
`MAX_RATIO`; and in the separate streams that a body may be made of, each of which costs time of its
own. The event loop gets its turn after every `WINDOW` bytes.
"""

import asyncio
import contextlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, Protocol

from gateway.asgi import Headers
from gateway.errors.request import BodyTooLarge, InvalidEncoding, UnsupportedEncoding
from gateway.header_names import CONTENT_ENCODING
from gateway.serving.body import body_too_large
from gateway.serving.body_budget import MIB, HeldBody

zstd: Any = None
"""Python's own module of that name from 3.14 on; absent from environments made for earlier versions
of the gateway."""
with contextlib.suppress(ImportError):
    zstd = import_module("backports.zstd")

WINDOW = 256 * 1024
"""Bytes that are decoded at a time."""
PIECE = 64 * 1024
"""Encoded bytes that are handed to a decoder at a time."""
MAX_RATIO = 200
"""How much longer than the encoded body the decoded one may be, beyond the first MiB."""
MAX_MEMBERS = 1000
"""Separate streams, one after the other, that a body may be made of."""
MAX_ENCODINGS = 4
ZSTD_WINDOW_LOG = 23
"""Power of two of the largest window of a zstd stream: what HTTP allows (RFC 9659)."""
IDENTITY = b"identity"


class Decoder(Protocol):
    """Decoder of one stream."""

    @property
    def eof(self) -> bool:
        """Whether the stream has come to its end."""

    @property
    def unused_data(self) -> bytes:
        """Bytes after that end."""

    def parts(self, data: bytes) -> Iterator[bytes]:
        """What `data` stands for, at most `WINDOW` bytes at a time."""


class Inflate:
    """Decoder of gzip (`wbits` 31), zlib (15) or raw deflate (-15)."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        """Whether the stream has come to its end."""
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        """Bytes after that end."""
        return self._stream.unused_data

    def parts(self, data: bytes) -> Iterator[bytes]:
        """What `data` stands for."""
        stream = self._stream
        part = stream.decompress(data, WINDOW)
        yield part
        while not stream.eof and (stream.unconsumed_tail or len(part) == WINDOW):
            part = stream.decompress(stream.unconsumed_tail, WINDOW)
            yield part


class Zstd:
    """Decoder of zstd."""

    def __init__(self) -> None:
        options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        self._stream = zstd.ZstdDecompressor(options=options)

    @property
    def eof(self) -> bool:
        """Whether the frame has come to its end."""
        return bool(self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        """Bytes after that end."""
        return bytes(self._stream.unused_data)

    def parts(self, data: bytes) -> Iterator[bytes]:
        """What `data` stands for."""
        yield self._stream.decompress(data, WINDOW)
        while not (self._stream.eof or self._stream.needs_input):
            yield self._stream.decompress(b"", WINDOW)


def _gzip(_: bytes) -> Decoder:
    return Inflate(31)


def _deflate(body: bytes) -> Decoder:
    """A decoder of zlib's format, or of the raw one that many clients send under that name."""
    is_zlib = len(body) > 1 and body[0] & 0x0F == 8 and not (body[0] << 8 | body[1]) % 31
    return Inflate(15 if is_zlib else -15)


def _zstd(_: bytes) -> Decoder:
    return Zstd()


DECODERS: dict[bytes, Callable[[bytes], Decoder]] = {b"gzip": _gzip, b"deflate": _deflate}
"""By encoding: the decoder of a stream that begins with the given bytes."""
if zstd is not None:
    DECODERS[b"zstd"] = _zstd
BROKEN: tuple[type[Exception], ...] = (zlib.error, *(() if zstd is None else (zstd.ZstdError,)))


def parse_encodings(headers: Headers) -> Sequence[bytes]:
    """The encodings of a request's body, in the order in which they were applied.

    Raises:
        UnsupportedEncoding: one of them is unknown, or there are too many.
    """
    values = b",".join(value for name, value in headers if name == CONTENT_ENCODING)
    # `x-gzip` is `gzip` (RFC 9110, 8.4.1.3).
    names = [name.strip().lower().removeprefix(b"x-") for name in values.split(b",")]
    encodings = [name for name in names if name not in (b"", IDENTITY)]
    supported = ", ".join(name.decode() for name in DECODERS)
    for name in encodings:
        if name not in DECODERS:
            shown = name[:100].decode(errors="replace")
            raise UnsupportedEncoding(
                f"The content encoding `{shown}` is not supported; supported are {supported}.",
                supported,
            )
    if len(encodings) > MAX_ENCODINGS:
        raise UnsupportedEncoding(
            f"The body has {len(encodings)} content encodings, of at most {MAX_ENCODINGS}.",
            supported,
        )
    return encodings


async def decode_body(
    body: bytes, encodings: Sequence[bytes], max_body_mb: float, held: HeldBody
) -> bytes:
    """The body without its encodings, of at most `max_body_mb` MiB; it counts as `held`.

    Raises:
        InvalidEncoding: it is damaged, or incomplete.
        BodyTooLarge: it becomes too large, or too much larger.
        BodyBudgetExceeded: the budget has no room for it.
    """
    for encoding in reversed(encodings):
        decoded = await _decode(body, encoding.decode(), max_body_mb, held)
        held.shrink(len(body))
        body = decoded
    return body


async def _decode(body: bytes, encoding: str, max_body_mb: float, held: HeldBody) -> bytes:
    limit_bytes = min(int(max_body_mb * MIB), max(MIB, MAX_RATIO * len(body)))
    parts: list[bytes] = []
    size = unyielded = 0
    try:
        for part in _parts(body, encoding):
            size += len(part)
            if size > limit_bytes:
                raise _too_large(len(body), limit_bytes, max_body_mb)
            held.grow(len(part))
            parts.append(part)
            unyielded += max(len(part), PIECE)
            if unyielded >= WINDOW:
                unyielded = 0
                await asyncio.sleep(0)
    except BROKEN:
        raise InvalidEncoding(f"The request body is not valid {encoding}.") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _parts(body: bytes, encoding: str) -> Iterator[bytes]:
    """The decoded body in parts, some of which may be empty.

    Raises:
        InvalidEncoding: something follows its end, or there is none.
    """
    make = DECODERS[encoding.encode()]
    decoder = make(body)
    members = 1
    for start in range(0, len(body), PIECE):
        piece = body[start : start + PIECE]
        while piece:
            if decoder.eof:
                if encoding == "gzip" and _is_padding(body, start + PIECE, piece):
                    return
                members += 1
                if encoding == "deflate" or members > MAX_MEMBERS:
                    raise InvalidEncoding(f"More follows the end of the {encoding} request body.")
                decoder = make(piece)
            yield from decoder.parts(piece)
            piece = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise InvalidEncoding(f"The {encoding} request body is incomplete.")


def _is_padding(body: bytes, end: int, piece: bytes) -> bool:
    """Whether all that follows is zeros, which gzip ignores: `piece`, and the body from `end`."""
    if piece[0]:
        return False  # a member does not begin with one
    return not piece.strip(b"\0") and not body[end:].strip(b"\0")


def _too_large(encoded_bytes: int, limit_bytes: int, max_body_mb: float) -> BodyTooLarge:
    if limit_bytes >= int(max_body_mb * MIB):
        return body_too_large(max_body_mb)
    return BodyTooLarge(
        f"The {encoded_bytes} bytes of the request body become more than {MAX_RATIO} times as many."
    )
