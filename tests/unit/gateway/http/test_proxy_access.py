"""A router's own port answers only the gateway's proxy, and tells it who is trusted."""

import httpx
import pytest

from gateway.assembly import RouterOptions, build_router
from gateway.config.gateway import GatewayConfig
from gateway.routing.fleet import Fleet
from gateway.upstream.client import UpstreamClient
from tests.unit.surface import CHAT

PROXY_KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("offered", "status"),
    [(None, 403), ("", 403), ("wrong", 403), (PROXY_KEY.upper(), 403), (PROXY_KEY, 200)],
)
@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/docs", "/gateway/config"])
async def test_a_router_answers_only_what_came_through_its_proxy(
    upstream: UpstreamClient, path: str, offered: str | None, status: int
) -> None:
    """Whatever the path: its port may be reached by others, who could invent their addresses."""
    router = build_router(
        Fleet(),
        lambda *_: None,
        upstream=upstream,
        options=RouterOptions(proxy_key=PROXY_KEY, is_local=True),
    )
    router.live_config.apply(GatewayConfig(open_on_loopback=True))
    headers = {} if offered is None else {"x-gateway-proxy-key": offered}
    transport = httpx.ASGITransport(router.app)

    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get(path, headers=headers)
        inference = await client.post(CHAT, json={}, headers=headers)

    assert response.status_code == status
    assert inference.status_code == (403 if status == 403 else 400)
    if status == 403:
        assert response.json()["error"]["code"] == "not_through_proxy"


@pytest.mark.parametrize(
    ("lines", "is_trusted"),
    [(["203.0.113.9", "10.0.0.1"], True), (["10.0.0.1", "203.0.113.9"], False), ([], False)],
)
async def test_haproxy_is_told_which_address_is_a_trusted_proxy(
    upstream: UpstreamClient, lines: list[str], is_trusted: bool
) -> None:
    """By a header of the answer, so that it does not limit that address's connections."""
    options = RouterOptions(is_forwarded=True)
    router = build_router(Fleet(), lambda *_: None, upstream=upstream, options=options)
    router.live_config.apply(GatewayConfig(trusted_proxies=["10.0.0.0/8"]))
    transport = httpx.ASGITransport(router.app)
    headers = [("x-forwarded-for", line) for line in lines]

    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        response = await client.post(CHAT, json={"model": "m", "messages": []}, headers=headers)

    assert ("x-gateway-trusted-proxy" in response.headers) == is_trusted
