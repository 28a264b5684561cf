"""The one handler of all inference routes; pure ASGI, because every request pays for it."""

import asyncio

from gateway.api.body import Limits, read_body
from gateway.api.delivery import Delivery, Means
from gateway.api.disconnect import UntilDisconnect
from gateway.api.errand import Errand, is_batch, is_resumable, timeout_s
from gateway.api.routes import parse_head
from gateway.api.selection import Selection, Selector
from gateway.api.tenant import tenant_of
from gateway.errors import MethodNotAllowed, ModelUnavailable
from gateway.faults import Action, Fault
from gateway.relay.asgi import Receive, Scope
from gateway.relay.headers import CLOSE
from gateway.relay.reply import Reply
from gateway.request import RequestHead

ALLOW = "POST, OPTIONS"


class Inference:
    """Takes a request, and has it delivered to its model."""

    def __init__(self, selector: Selector, means: Means, limits: Limits) -> None:
        self._selector = selector
        self._means = means
        self._limits = limits

    async def __call__(
        self, scope: Scope, receive: Receive, reply: Reply, request_id: bytes
    ) -> None:
        """Answer the request in `scope`, whose path must be one of `gateway.api.routes`.

        Raises:
            GatewayError: `reply` has not begun; or `UpstreamFailed` in the middle of an answer.
            ClientGone: nobody waits for an answer any more.
        """
        path: str = scope["path"]
        if scope["method"] != "POST":
            await _answer_other_method(scope, reply)
            return
        arrived_s = asyncio.get_running_loop().time()
        headers = dict(scope["headers"])
        body = await read_body(receive, headers.get(b"content-length"), self._limits)
        head = parse_head(path, body, headers.get(b"content-type", b""))
        session = headers.get(b"x-session-id", b"")
        errand = Errand(
            path=path,
            headers=scope["headers"],
            body=body,
            request_id=request_id,
            tenant=tenant_of(headers, scope, is_forwarded=self._means.is_forwarded),
            is_stream=head.is_stream,
            is_explained=headers.get(b"x-gateway-explain") == b"1",
            is_batch=is_batch(headers),
            is_resumable=is_resumable(headers),
            timeout_s=timeout_s(headers),
            arrived_s=arrived_s,
        )
        selection = self._select(errand, head, session)
        async with UntilDisconnect(receive):
            await Delivery(errand, selection, self._means, reply).run()

    def _select(self, errand: Errand, head: RequestHead, session: bytes) -> Selection:
        try:
            return self._selector.select(errand.path, head, session, errand.request_id)
        except ModelUnavailable as error:
            # A name that is no model's must not become a label: clients can invent many.
            name = head.model if self._selector.knows(head.model) else "-"
            fault = Fault(name, error.code, Action.FAILED)
            self._means.faults.note(fault, request_id=errand.request_id.decode(), why=str(error))
            raise


async def _answer_other_method(scope: Scope, reply: Reply) -> None:
    if scope["method"] != "OPTIONS":
        reply.headers.append(CLOSE)  # it may have a body, which nobody reads
        raise MethodNotAllowed(
            f"Not allowed to {scope['method']} on {scope['path']}. (HINT: Use POST.)", ALLOW
        )
    await reply.begin(204, [(b"allow", ALLOW.encode())])
    await reply.finish()
