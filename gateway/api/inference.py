"""The one handler of all inference routes; pure ASGI, because every request pays for it."""

from gateway.api.body import Limits, read_body
from gateway.api.disconnect import UntilDisconnect
from gateway.api.routes import parse_head
from gateway.api.selection import Selector
from gateway.errors import MethodNotAllowed
from gateway.relay.asgi import Receive, Scope
from gateway.relay.relay import Call, Relay
from gateway.relay.reply import Reply
from gateway.routing.decision import Decision
from gateway.telemetry import DISPATCH

ALLOW = "POST, OPTIONS"


class Inference:
    """Takes a request, has a replica chosen, and relays."""

    def __init__(self, selector: Selector, relay: Relay, limits: Limits) -> None:
        self._selector = selector
        self._relay = relay
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
        headers = dict(scope["headers"])
        body = await read_body(receive, headers.get(b"content-length"), self._limits)
        head = parse_head(path, body, headers.get(b"content-type", b""))
        session = headers.get(b"x-session-id", b"")
        selection = self._selector.select(path, head, session, request_id)
        decision = selection.decision
        _tell(decision, reply)
        if headers.get(b"x-gateway-explain") == b"1":
            reply.headers.append((b"x-gateway-decision", decision.encode()))
        with selection.dispatcher.sending(decision, selection.prompt) as dispatch:
            word = [(DISPATCH, dispatch.encode())]
            call = Call(path, scope["headers"], body, request_id, word)
            async with UntilDisconnect(receive):
                await self._relay.carry(call, decision.replica, reply)


def _tell(decision: Decision, reply: Reply) -> None:
    reply.headers += (
        (b"x-gateway-replica", decision.replica.id.encode()),
        (b"x-gateway-cached-tokens", b"%d" % decision.cached_tokens),
    )


async def _answer_other_method(scope: Scope, reply: Reply) -> None:
    if scope["method"] != "OPTIONS":
        raise MethodNotAllowed(
            f"Not allowed to {scope['method']} on {scope['path']}. (HINT: Use POST.)", ALLOW
        )
    await reply.begin(204, [(b"allow", ALLOW.encode())])
    await reply.finish()
