"""Handler of all inference routes; pure ASGI, because every request pays for it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from gateway.asgi import Headers, Receive, Scope, fields_of, header
from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import MethodNotAllowed, UnsupportedTransfer, UpgradeRefused
from gateway.header_names import (
    CONTENT_ENCODING,
    FORWARDED_FOR,
    IS_TRUSTED_PROXY,
    PRIORITY,
    SERVICE_TIER,
)
from gateway.request.inference_request import (
    InferenceRequest,
    asks_for_batch,
    parse_is_batch,
    parse_request,
)
from gateway.request.routes import body_limit_mb
from gateway.serving.access import OPERATOR
from gateway.serving.body import read_body
from gateway.serving.body_budget import BodyBudget, HeldBody
from gateway.serving.client_identity import identity_in, tenant_of
from gateway.serving.client_response import ClientResponse
from gateway.serving.content_encoding import decode_body, parse_encodings
from gateway.serving.disconnect import UntilDisconnect
from gateway.serving.fallback import FallbackChain
from gateway.serving.live_config import LiveConfig
from gateway.serving.model_access import allowed_route
from gateway.serving.request_metrics import RequestMetrics, client_labels
from gateway.serving.request_record import RequestRecord
from gateway.serving.router_context import RouterContext
from gateway.serving.shadow import ShadowTraffic
from gateway.serving.target_resolver import TargetResolver
from gateway.serving.timing import RECEIVE
from gateway.upstream.headers import CONNECTION_CLOSE

ALLOW = "POST, OPTIONS"
CHUNKED = b"chunked"


class AnswerMaker(Protocol):
    """The rest of the way of one request."""

    async def run(self, request: InferenceRequest, response: ClientResponse) -> None:
        """Have a request answered; raises its error."""

    async def run_alone(self, request: InferenceRequest, response: ClientResponse) -> None:
        """Have a request answered for which no client waits, and account for it by itself."""


class StatefulRequests(Protocol):
    """What answers requests that refer to stored objects, or whose answer is to be stored."""

    def concerns(self, request: InferenceRequest) -> bool:
        """Whether a request is one of them."""

    async def answer(
        self, request: InferenceRequest, maker: AnswerMaker, call: "ClientCall"
    ) -> None:
        """Answer such a request.

        Raises:
            GatewayError: its response has not begun; or `UpstreamFailed` in the middle of it.
            ClientDisconnected: the client has left.
        """


@dataclass(frozen=True, slots=True)
class ClientCall:
    """The connection that a request came over, and what its body takes."""

    scope: Scope
    receive: Receive
    response: ClientResponse
    held: HeldBody
    """What its body counts as."""
    max_body_mb: float
    """Size of its body at the utmost, in MiB."""


class InferenceHandler:
    """Parses a request, resolves its model, has it answered, and records how that ended."""

    def __init__(  # noqa: PLR0913 - one for each part that requests go through
        self,
        resolver: TargetResolver,
        context: RouterContext,
        shadows: ShadowTraffic,
        live_config: LiveConfig,
        bodies: BodyBudget,
        request_metrics: RequestMetrics,
        *,
        stateful: StatefulRequests | None = None,
    ) -> None:
        self._stateful = stateful
        self._request_metrics = request_metrics
        self._resolver = resolver
        self._context = context
        self._shadows = shadows
        self._live_config = live_config
        self._bodies = bodies

    async def __call__(
        self, scope: Scope, receive: Receive, response: ClientResponse, request_id: bytes
    ) -> None:
        """Answer the request in `scope`, whose path must be one of `gateway.request.routes`.

        Raises:
            GatewayError: `response` has not begun; or `UpstreamFailed` in the middle of an answer.
            ClientDisconnected: the client has left.
        """
        if scope["method"] != "POST":
            await _answer_other_method(scope, response)
            return
        fields, identity = fields_of(scope), identity_in(scope)
        is_forwarded, proxies = self._context.is_forwarded, self._live_config.trusted_proxies
        tenant = tenant_of(fields, scope, is_forwarded=is_forwarded, proxies=proxies)
        if is_forwarded and fields.get(FORWARDED_FOR, b"") in proxies:
            response.always_send(IS_TRUSTED_PROXY, b"1")
        client = client_labels(tenant, identity, is_batch=asks_for_batch(fields))
        record = self._request_metrics.open(scope, response, request_id, client)
        with record, self._bodies.open(tenant.owner) as held:
            arrived_s = asyncio.get_running_loop().time()
            is_batch = parse_is_batch(fields)  # a wrong one is rejected before the body comes
            with response.timing.step(RECEIVE):
                limit_mb = body_limit_mb(scope["path"], self._live_config.config)
                limit_mb = min(limit_mb, identity.project.max_body_mb or limit_mb)
                body = await _read_body(receive, scope["headers"], fields, limit_mb, held)
            request = parse_request(
                scope["path"],
                body,
                fields,
                headers=record.headers,
                request_id=request_id,
                tenant=tenant,
                is_operator=scope.get(OPERATOR, False),
                identity=identity,
                is_batch=is_batch,
                arrived_s=arrived_s,
            )
            if PRIORITY in fields or request.asks_for_tier:
                response.always_send(SERVICE_TIER, request.tier.encode())
            if (stateful := self._stateful) is not None and stateful.concerns(request):
                call = ClientCall(scope, receive, response, held, limit_mb)
                await stateful.answer(request, _CurrentRequest(self, record, scope, client), call)
                return
            chain = self._resolve(request, response)
            record.record_chain(chain)
            async with UntilDisconnect(receive, response):
                await chain.run()

    async def run(
        self, request: InferenceRequest, response: ClientResponse, record: RequestRecord
    ) -> None:
        """Have a request answered that is recorded already; raises its error."""
        chain = self._resolve(request, response)
        record.record_chain(chain)
        await chain.run()

    async def run_alone(
        self,
        request: InferenceRequest,
        response: ClientResponse,
        scope: Scope,
        client: tuple[str, str],
    ) -> None:
        """Have a request answered for which no client waits; raises its error.

        `client`: its `client_labels`.
        """
        metrics = self._request_metrics
        record = metrics.open(scope, response, response.request_id, client)
        with record, self._bodies.open(request.tenant.owner) as held:
            held.grow(len(request.body))
            alone = msgspec.structs.replace(
                request,
                request_id=response.request_id,
                arrived_s=asyncio.get_running_loop().time(),
            )
            await self.run(alone, response, record)

    def record_refusal(self, scope: Scope, response: ClientResponse, error: GatewayError) -> None:
        """Record an inference request that is not let in."""
        self._request_metrics.record_refusal(scope, response, error)

    def _resolve(self, request: InferenceRequest, response: ClientResponse) -> FallbackChain:
        """Chain of the models that the requested name stands for; it answers to `response`."""
        names, requested = self._live_config.names, request.head.model
        key = request.sticky_key if names.depends_on_key(requested) else b""
        route = allowed_route(request.identity, requested, key, names)
        chain = FallbackChain(request, route.models, self._resolver, self._context, response)
        if route.shadow is not None:
            self._shadows.mirror(request, route.shadow, response, chain)
        return chain


@dataclass(frozen=True, slots=True)
class _CurrentRequest:
    """`AnswerMaker` of one request."""

    handler: InferenceHandler
    record: RequestRecord
    scope: Scope
    client: tuple[str, str]

    async def run(self, request: InferenceRequest, response: ClientResponse) -> None:
        """Have it answered; raises its error."""
        await self.handler.run(request, response, self.record)

    async def run_alone(self, request: InferenceRequest, response: ClientResponse) -> None:
        """Have it answered for no client, with a record of its own."""
        await self.handler.run_alone(request, response, self.scope, self.client)


async def _read_body(
    receive: Receive,
    headers: Headers,
    fields: Mapping[bytes, bytes],
    max_body_mb: float,
    held: HeldBody,
) -> bytes:
    """The body as an engine gets it: complete, and not compressed."""
    coding = fields.get(b"transfer-encoding", CHUNKED)
    if coding.lower() != CHUNKED:
        raise UnsupportedTransfer.of(coding)
    encodings = parse_encodings(headers) if CONTENT_ENCODING in fields else ()
    body = await read_body(receive, fields.get(b"content-length"), max_body_mb, held)
    return await decode_body(body, encodings, max_body_mb, held) if encodings else body


async def _answer_other_method(scope: Scope, response: ClientResponse) -> None:
    if header(scope["headers"], b"upgrade", b"").lower() == b"websocket":
        raise UpgradeRefused.to_websocket()
    if scope["method"] != "OPTIONS":
        response.annotate([CONNECTION_CLOSE])  # the request may have a body, which nobody reads
        raise MethodNotAllowed(
            f"Not allowed to {scope['method']} on {scope['path']}. (HINT: Use POST.)", ALLOW
        )
    await response.begin(204, [(b"allow", ALLOW.encode())])
    await response.finish()
