"""Headers that the gateway forwards."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.headers import FORWARDED_TO_ENGINE, sound_request_id, to_client, to_engine

NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20).map(str.encode)
HEADERS = st.lists(
    st.tuples(NAMES | st.sampled_from(sorted(FORWARDED_TO_ENGINE)), st.binary(max_size=20))
)


@given(HEADERS)
def test_an_engine_gets_only_allowed_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """It gets the allowed ones without line breaks, and the gateway's own."""
    forwarded = to_engine(headers, "key", b"id")
    assert forwarded[-2:] == [(b"authorization", b"Bearer key"), (b"x-request-id", b"id")]
    assert forwarded[:-2] == [
        (name, value)
        for name, value in headers
        if name in FORWARDED_TO_ENGINE and not re.search(rb"[\r\n]", value)
    ]


@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"cookie",
        b"endpoint-load-metrics-format",
        b"expect",
        b"host",
        b"transfer-encoding",
        b"x-api-key",
        b"x-data-parallel-rank",
        b"x-gateway-priority",
        b"x-request-id",
        b"x-session-id",
        b"x-vllm-priority",
    ],
)
def test_a_client_cannot_control_an_engine_by_headers(name: bytes) -> None:
    """Headers that control an engine or its connection are not forwarded."""
    assert (name, b"1") not in to_engine([(name, b"1")], "key", b"id")


def test_headers_of_the_engines_connection_are_not_forwarded() -> None:
    """Hop-by-hop headers, also those that `Connection` names, and the server's are dropped."""
    headers = [
        (b"content-type", b"application/json"),
        (b"connection", b"X-Hop, close"),
        (b"x-hop", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"server", b"uvicorn"),
        (b"date", b"today"),
        (b"x-request-id", b"engine's"),
        (b"x-kept", b"1"),
    ]
    assert to_client(headers) == [(b"content-type", b"application/json"), (b"x-kept", b"1")]


@pytest.mark.parametrize("offered", [b"a", b"req_1-2/3:4", b"x" * 128])
def test_a_valid_request_id_is_kept(offered: bytes) -> None:
    """Short, visible ASCII is valid."""
    assert sound_request_id(offered) == offered


@pytest.mark.parametrize("offered", [None, b"", b"x" * 129, b"a b", b"a\n", b"\xc3\xa9", b"\x00"])
def test_an_invalid_request_id_is_replaced(offered: bytes | None) -> None:
    """Each missing or unloggable id is replaced by a new one."""
    made = sound_request_id(offered)
    assert re.fullmatch(rb"[0-9a-f]{32}", made)
    assert made != sound_request_id(offered)
