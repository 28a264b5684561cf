"""Limits of bodies, which depend on what a route's bodies hold."""

from gateway.config.gateway import GatewayConfig
from gateway.request.routes import ROUTES, body_limit_mb


def test_routes_for_texts_have_a_smaller_limit() -> None:
    """Only bodies that commonly hold media may be as large as `max_body_mb`."""
    config = GatewayConfig(max_body_mb=32, max_text_body_mb=16)
    limits = {path: body_limit_mb(path, config) for path in ROUTES}
    assert {path for path, limit_mb in limits.items() if limit_mb == 32} == {
        *("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
        "/v2/embed",
        *("/v1/audio/transcriptions", "/v1/audio/translations"),
    }
    assert set(limits.values()) == {16, 32}


def test_no_route_has_more_than_the_general_limit() -> None:
    """A lower `max_body_mb` holds for texts, too."""
    assert body_limit_mb("/tokenize", GatewayConfig(max_body_mb=1)) == 1
