"""HTTP's chunked transfer coding, as far as chunks are passed on without being parsed."""

CRLF = b"\r\n"
MAX_LINE = 10
"""Most bytes of a line with a size, its end included: up to 4 GiB."""
USUAL_SIZES = {b"%x" % size: size for size in range(1, 1024)}
"""Sizes by their lines; looking up those of most events costs half as much as reading them."""


def whole_chunks(data: bytes) -> bytes:
    """The body in `data`, if that is nothing but whole chunks; empty if it is anything else.

    Only the usual form counts, which every reader understands in the same way: sizes in lower case
    without leading zeros, no extensions, and not the last chunk. Linear in the bytes.
    """
    line, _, rest = data.partition(CRLF)
    size = USUAL_SIZES.get(line) or _size(line)
    if not size:
        return b""
    if len(rest) > size + 2:
        return _several_whole_chunks(data)
    return rest[:size] if rest[size:] == CRLF else b""


def as_chunk(body: bytes) -> bytes:
    """The body, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def _several_whole_chunks(data: bytes) -> bytes:
    start = 0
    bodies: list[bytes] = []
    while start < len(data):
        line_end = data.find(CRLF, start, start + MAX_LINE)
        if line_end < 0 or not (size := _size(data[start:line_end])):
            return b""
        body_start = line_end + 2
        body_end = body_start + size
        start = body_end + 2
        if data[body_end:start] != CRLF:
            return b""
        bodies.append(data[body_start:body_end])
    return b"".join(bodies)


def _size(line: bytes) -> int:
    """The size in a chunk's line; 0 if that is not in the usual form."""
    if len(line) > MAX_LINE - len(CRLF):
        return 0
    try:
        size = int(line, 16)
    except ValueError:
        return 0
    return size if size > 0 and line == b"%x" % size else 0
