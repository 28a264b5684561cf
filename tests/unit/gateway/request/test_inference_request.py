"""Requests parsed from headers: what clients may ask for, and errors for the rest."""

import pytest

from gateway.errors.request import InvalidRequest
from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project
from gateway.request.head import parse_json
from gateway.request.inference_request import (
    SESSION_LIMIT,
    InferenceRequest,
    asks_for_batch,
    parse_is_batch,
    parse_is_resumable,
    parse_request,
    parse_timeout_s,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, False), (b"interactive", False), (b"batch", True), (b" Batch ", True)],
)
def test_priority_is_interactive_by_default(value: bytes | None, expected: bool) -> None:
    """Requests are interactive unless they say otherwise."""
    headers = {} if value is None else {b"x-gateway-priority": value}
    assert parse_is_batch(headers) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, True), (b"on", True), (b"off", False), (b"OFF", False)]
)
def test_streams_are_resumable_by_default(value: bytes | None, expected: bool) -> None:
    """Streams are carried on unless the client does not want it."""
    headers = {} if value is None else {b"x-gateway-resume": value}
    assert parse_is_resumable(headers) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), (b"1", 1.0), (b"0.25", 0.25), (b"86400", 86400.0)]
)
def test_a_timeout_is_a_number_of_seconds(value: bytes | None, expected: float | None) -> None:
    """A number of seconds, whole or not."""
    headers = {} if value is None else {b"x-request-timeout-s": value}
    assert parse_timeout_s(headers) == expected


@pytest.mark.parametrize(
    "value", [b"", b"0", b"-1", b"nan", b"inf", b"86401", b"5s", b"1e999", b"\xff"]
)
def test_an_invalid_timeout_is_rejected(value: bytes) -> None:
    """The error names the header."""
    with pytest.raises(InvalidRequest, match="x-request-timeout-s") as caught:
        parse_timeout_s({b"x-request-timeout-s": value})
    assert caught.value.param == "x-request-timeout-s"


@pytest.mark.parametrize("value", [b"", b"urgent", b"0", b"\xff\xfe"])
def test_unknown_words_are_rejected(value: bytes) -> None:
    """The error names the header and the words it takes."""
    with pytest.raises(InvalidRequest, match="`interactive` or `batch`"):
        parse_is_batch({b"x-gateway-priority": value})
    with pytest.raises(InvalidRequest, match="`on` or `off`"):
        parse_is_resumable({b"x-gateway-resume": value})


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
def test_the_sticky_key_is_the_session_the_user_or_the_request(
    session: bytes, field: bytes, key: bytes
) -> None:
    """The session, or else the user; requests without either have no key in common."""
    body = b'{"model":"m",%b}' % field
    request = InferenceRequest(head=parse_json(body), request_id=b"id", session=session)
    assert request.sticky_key == key


def test_a_request_is_parsed_from_its_body_and_headers() -> None:
    """Engines get the headers that are for them; the rest become fields."""
    fields = {
        b"x-session-id": b"s" * 999,
        b"x-gateway-resume": b"off",
        b"x-gateway-explain": b"1",
        b"x-request-timeout-s": b"2.5",
    }
    headers = [(b"accept", b"*/*")]
    body = b'{"model":"m"}'
    request = parse_request(
        "/v1/completions", body, fields, headers=headers, request_id=b"id", is_batch=True
    )

    assert (request.head.model, request.path, request.body) == ("m", "/v1/completions", body)
    assert (request.headers, request.request_id) == (headers, b"id")
    assert request.session == b"s" * SESSION_LIMIT
    assert (request.is_batch, request.is_resumable, request.is_explained) == (True, False, True)
    assert request.timeout_s == 2.5


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, False), (b"interactive", False), (b" Batch", True), (b"x", False)],
)
def test_the_priority_label_is_known_of_any_request(value: bytes | None, expected: bool) -> None:
    """A request that is rejected for its priority is counted as interactive."""
    assert asks_for_batch({} if value is None else {b"x-gateway-priority": value}) is expected


def test_sessions_and_users_belong_to_their_project() -> None:
    """Two projects that choose the same name share nothing by it."""
    fields = {b"x-session-id": b"s"}

    def keys(project: str) -> tuple[bytes, bytes, bytes]:
        identity = ClientIdentity(project=Project(id=project))
        body = b'{"model":"m","user":"u"}'
        path, id_ = "/v1/completions", b"id"
        with_session = parse_request(
            path, body, fields, headers=[], request_id=id_, identity=identity
        )
        without = parse_request(path, body, {}, headers=[], request_id=id_, identity=identity)
        return with_session.session, without.session, without.sticky_key

    assert keys("a")[0] == keys("a")[0] != keys("b")[0]
    assert keys("a")[1] == keys("b")[1] == b""
    assert keys("a")[2] != keys("b")[2]
    assert keys("")[0] == b"s"
    assert keys("")[2] == b"u"
