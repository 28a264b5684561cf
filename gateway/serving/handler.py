"""The one handler of all inference routes; pure ASGI, because every request pays for it."""

import asyncio

from gateway.asgi import Receive, Scope
from gateway.errors import MethodNotAllowed
from gateway.header_names import EXPLAIN, SESSION
from gateway.request.inference_request import (
    SESSION_LIMIT,
    InferenceRequest,
    is_batch,
    is_resumable,
    timeout_s,
)
from gateway.request.routes import parse_head
from gateway.serving.attempts import RouterContext
from gateway.serving.body import read_body
from gateway.serving.client_identity import tenant_of
from gateway.serving.client_response import ClientResponse
from gateway.serving.disconnect import UntilDisconnect
from gateway.serving.fallback import FallbackChain
from gateway.serving.live_config import LiveConfig
from gateway.serving.request_metrics import RequestMetrics, RequestRecord
from gateway.serving.shadow import ShadowTraffic
from gateway.serving.target_resolver import TargetResolver
from gateway.serving.timing import RECEIVE
from gateway.upstream.headers import CLOSE

ALLOW = "POST, OPTIONS"


class InferenceHandler:
    """Takes a request, and sends it on its way to the models that its client's word stands for."""

    def __init__(
        self,
        resolver: TargetResolver,
        context: RouterContext,
        shadows: ShadowTraffic,
        live_config: LiveConfig,
        request_metrics: RequestMetrics,
    ) -> None:
        self._request_metrics = request_metrics
        self._resolver = resolver
        self._context = context
        self._shadows = shadows
        self._live_config = live_config

    async def __call__(
        self, scope: Scope, receive: Receive, reply: ClientResponse, request_id: bytes
    ) -> None:
        """Answer the request in `scope`, whose path must be one of `gateway.request.routes`.

        Raises:
            GatewayError: `reply` has not begun; or `UpstreamFailed` in the middle of an answer.
            ClientGone: nobody waits for an answer any more.
        """
        if scope["method"] != "POST":
            await _answer_other_method(scope, reply)
            return
        with self._request_metrics.open(
            scope["path"], scope["headers"], reply, request_id
        ) as record:
            await self._answer(scope, receive, reply, request_id, record)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        reply: ClientResponse,
        request_id: bytes,
        record: RequestRecord,
    ) -> None:
        arrived_s = asyncio.get_running_loop().time()
        path: str = scope["path"]
        headers = dict(scope["headers"])
        record.tenant = tenant_of(headers, scope, is_forwarded=self._context.is_forwarded)
        record.is_batch = is_batch(headers)
        with reply.timing.step(RECEIVE):
            body = await read_body(
                receive, headers.get(b"content-length"), self._live_config.limits
            )
        head = parse_head(path, body, headers.get(b"content-type", b""))
        request = InferenceRequest(
            head=head,
            path=path,
            headers=record.headers,
            body=body,
            request_id=request_id,
            tenant=record.tenant,
            session=headers.get(SESSION, b"")[:SESSION_LIMIT],
            is_explained=headers.get(EXPLAIN) == b"1",
            is_batch=record.is_batch,
            is_resumable=is_resumable(headers),
            timeout_s=timeout_s(headers),
            arrived_s=arrived_s,
        )
        names = self._live_config.names
        key = request.sticky_key if names.depends_on_key(head.model) else b""
        route = names.route(head.model, key)
        chain = FallbackChain(request, route.models, self._resolver, self._context, reply)
        record.chain = chain
        if route.shadow is not None:
            self._shadows.copy(request, route.shadow, reply, chain)
        async with UntilDisconnect(receive, reply):
            await chain.run()


async def _answer_other_method(scope: Scope, reply: ClientResponse) -> None:
    if scope["method"] != "OPTIONS":
        reply.headers.append(CLOSE)  # it may have a body, which nobody reads
        raise MethodNotAllowed(
            f"Not allowed to {scope['method']} on {scope['path']}. (HINT: Use POST.)", ALLOW
        )
    await reply.begin(204, [(b"allow", ALLOW.encode())])
    await reply.finish()
