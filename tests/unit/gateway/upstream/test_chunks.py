"""Chunks of HTTP that are passed on unparsed, compared with what a parser makes of them."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.chunks import as_chunk, whole_chunks

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"data: {}\n\n"
ALMOST = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b"0", b"a", b"5", b"05", b"A", b";", b"x", b"", EVENT]),
    max_size=8,
).map(b"".join)
"""Bytes that may look like chunks."""


class Parsed:
    """What httptools makes of a body in chunked coding."""

    def __init__(self) -> None:
        self.body = b""
        self.is_complete = False
        self.parser = httptools.HttpResponseParser(self)
        self.parser.feed_data(HEAD)

    def on_body(self, data: bytes) -> None:
        """Add a piece of the body (called by the parser)."""
        self.body += data

    def on_message_complete(self) -> None:
        """Note the end (called by the parser)."""
        self.is_complete = True


@given(st.lists(st.binary(min_size=1, max_size=5000), min_size=1, max_size=4))
def test_whole_chunks_are_recognized(bodies: list[bytes]) -> None:
    """One or several, whatever is in them."""
    assert whole_chunks(b"".join(map(as_chunk, bodies))) == b"".join(bodies)


@given(
    st.lists(ALMOST | st.binary(max_size=40) | ALMOST.filter(bool).map(as_chunk), max_size=4).map(
        b"".join
    )
)
def test_nothing_else_is_taken_for_whole_chunks(data: bytes) -> None:
    """A parser finds the same body, and stands between two chunks afterwards."""
    body = whole_chunks(data)
    if not body:
        return
    parsed = Parsed()
    parsed.parser.feed_data(data)
    found = parsed.body, parsed.is_complete
    parsed.parser.feed_data(b"0\r\n\r\n")

    assert found == (body, False)
    assert (parsed.body, parsed.is_complete) == (body, True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a\r\n",
        as_chunk(EVENT)[:-1],
        as_chunk(EVENT) + b"a",
        as_chunk(EVENT) + b"a\r\n",
        as_chunk(EVENT) + as_chunk(EVENT)[:-2],
        as_chunk(EVENT) + b"0\r\n\r\n",
        b"0\r\n\r\n",
        b"-a\r\n" + EVENT + b"\r\n",
        b"A\r\n" + EVENT + b"\r\n",
        b"0a\r\n" + EVENT + b"\r\n",
        b"0xa\r\n" + EVENT + b"\r\n",
        b"a;of=10\r\n" + EVENT + b"\r\n",
        b"a\n" + EVENT + b"\n",
        b"a\r\n" + EVENT + b"--",
        b"ffffffffff\r\n" + EVENT + b"\r\n",
        b"9" * 5000 + b"\r\n" + EVENT + b"\r\n",
    ],
)
def test_other_forms_are_left_to_the_parser(data: bytes) -> None:
    """Parts of chunks, the last chunk, extensions, and sizes that readers may take for others."""
    assert whole_chunks(data) == b""
