"""Limits of bodies, which depend on what a route's bodies hold."""

import pytest

from gateway.config.gateway import GatewayConfig
from gateway.config.route_paths import ROUTES
from gateway.request.routes import body_limit_mb, parse_head


def test_routes_for_texts_have_a_smaller_limit() -> None:
    """Only bodies that commonly hold media may be as large as `max_body_mb`."""
    config = GatewayConfig(max_body_mb=32, max_text_body_mb=16)
    limits = {path: body_limit_mb(path, config) for path in ROUTES}
    assert {path for path, limit_mb in limits.items() if limit_mb == 32} == {
        *("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
        *("/v1/responses/input_tokens", "/v2/embed"),
        *("/v1/audio/transcriptions", "/v1/audio/translations"),
    }
    assert set(limits.values()) == {16, 32}


def test_no_route_has_more_than_the_general_limit() -> None:
    """A lower `max_body_mb` holds for texts, too."""
    assert body_limit_mb("/tokenize", GatewayConfig(max_body_mb=1)) == 1


@pytest.mark.parametrize(
    ("path", "fields", "limit"),
    [
        ("/v1/chat/completions", b'"max_completion_tokens":7,"max_tokens":9', 7),
        ("/v1/chat/completions", b'"max_tokens":9,"max_output_tokens":1', 9),
        ("/v1/chat/completions", b'"max_output_tokens":1', None),
        ("/v1/completions", b'"max_tokens":9,"max_completion_tokens":1', 9),
        ("/v1/messages", b'"max_tokens":9,"max_completion_tokens":1', 9),
        ("/v1/responses", b'"max_output_tokens":9,"max_tokens":1', 9),
        ("/v1/responses", b'"max_tokens":1', None),
    ],
)
def test_only_the_route_s_own_limit_of_an_answer_counts(
    path: str, fields: bytes, limit: int | None
) -> None:
    """An engine ignores those of other routes: with one, a client would reserve next to nothing."""
    assert parse_head(path, b'{"model":"m",%b}' % fields, b"").max_tokens == limit
