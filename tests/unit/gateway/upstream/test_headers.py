"""Which headers cross the gateway."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.headers import TO_ENGINE, sound_request_id, to_client, to_engine

NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20).map(str.encode)
HEADERS = st.lists(st.tuples(NAMES | st.sampled_from(sorted(TO_ENGINE)), st.binary(max_size=20)))


@given(HEADERS)
def test_engine_sees_only_what_is_allowed(headers: list[tuple[bytes, bytes]]) -> None:
    """For any headers of a client, an engine gets allowed ones, unsplit, and the gateway's own."""
    passed = to_engine(headers, "key", b"id")
    assert passed[-2:] == [(b"authorization", b"Bearer key"), (b"x-request-id", b"id")]
    assert passed[:-2] == [
        (name, value)
        for name, value in headers
        if name in TO_ENGINE and not re.search(rb"[\r\n]", value)
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
def test_client_cannot_steer_an_engine(name: bytes) -> None:
    """Nothing that engines or the connection take orders from comes from outside."""
    assert (name, b"1") not in to_engine([(name, b"1")], "key", b"id")


def test_client_does_not_see_the_engines_connection() -> None:
    """Hop-by-hop headers, also those `Connection` names, and the server's own are dropped."""
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
def test_sound_request_id_is_kept(offered: bytes) -> None:
    """What is short and visible ASCII is passed on as it is."""
    assert sound_request_id(offered) == offered


@pytest.mark.parametrize("offered", [None, b"", b"x" * 129, b"a b", b"a\n", b"\xc3\xa9", b"\x00"])
def test_other_request_ids_are_replaced(offered: bytes | None) -> None:
    """No id, or one that cannot be logged, becomes a new one each time."""
    made = sound_request_id(offered)
    assert re.fullmatch(rb"[0-9a-f]{32}", made)
    assert made != sound_request_id(offered)
