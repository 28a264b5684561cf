"""What clients may ask for in headers, and what they get for nonsense."""

import pytest

from gateway.errors import InvalidRequest
from gateway.request.head import parse_json
from gateway.request.inference_request import (
    InferenceRequest,
    is_batch,
    is_resumable,
    timeout_s,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, False), (b"interactive", False), (b"batch", True), (b" Batch ", True)],
)
def test_priority(value: bytes | None, expected: bool) -> None:
    """Requests are interactive unless they say otherwise."""
    headers = {} if value is None else {b"x-gateway-priority": value}
    assert is_batch(headers) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, True), (b"on", True), (b"off", False), (b"OFF", False)]
)
def test_resume(value: bytes | None, expected: bool) -> None:
    """Streams are carried on unless the client does not want it."""
    headers = {} if value is None else {b"x-gateway-resume": value}
    assert is_resumable(headers) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), (b"1", 1.0), (b"0.25", 0.25), (b"86400", 86400.0)]
)
def test_timeout(value: bytes | None, expected: float | None) -> None:
    """A number of seconds, whole or not."""
    headers = {} if value is None else {b"x-request-timeout-s": value}
    assert timeout_s(headers) == expected


@pytest.mark.parametrize(
    "value", [b"", b"0", b"-1", b"nan", b"inf", b"86401", b"5s", b"1e999", b"\xff"]
)
def test_a_timeout_that_is_none_is_refused(value: bytes) -> None:
    """The error names the header."""
    with pytest.raises(InvalidRequest, match="x-request-timeout-s") as caught:
        timeout_s({b"x-request-timeout-s": value})
    assert caught.value.param == "x-request-timeout-s"


@pytest.mark.parametrize("value", [b"", b"urgent", b"0", b"\xff\xfe"])
def test_words_that_are_none_are_refused(value: bytes) -> None:
    """The error names the header and the words it takes."""
    with pytest.raises(InvalidRequest, match="`interactive` or `batch`"):
        is_batch({b"x-gateway-priority": value})
    with pytest.raises(InvalidRequest, match="`on` or `off`"):
        is_resumable({b"x-gateway-resume": value})


@pytest.mark.parametrize(
    ("session", "field", "key"),
    [
        (b"s", b'"user":"u"', b"s"),
        (b"", b'"user":"u"', b"u"),
        (b"", b'"user":"\\u0075"', b"u"),
        (b"", b'"metadata":{"user_id":"u"}', b"u"),
        (b"", b'"user":null', b"id"),
        (b"", b'"user":""', b"id"),
    ],
)
def test_what_requests_share(session: bytes, field: bytes, key: bytes) -> None:
    """A session, or else a user; nobody is no user whom all the others are, too."""
    body = b'{"model":"m",%b}' % field
    request = InferenceRequest(head=parse_json(body), request_id=b"id", session=session)
    assert request.sticky_key == key
