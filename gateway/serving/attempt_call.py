"""What an attempt sends to an engine: the request, or what asks for the rest of a broken stream."""

from collections.abc import Awaitable

import msgspec

from gateway.asgi import Headers
from gateway.errors.upstream import StreamLost
from gateway.request.inference_request import InferenceRequest
from gateway.resume.completion_params import Unresumable
from gateway.resume.resumption import ResumptionPlan, plan_resumption
from gateway.resume.stream_log import StreamLog
from gateway.routing.fleet import Replica
from gateway.routing.target import Target
from gateway.telemetry.dispatch import DISPATCH, Dispatch, EarlierAttempt
from gateway.upstream.engine_call import TOKENIZE, EngineCall, EngineClient


def engine_call(
    request: InferenceRequest,
    dispatch: Dispatch,
    rest: ResumptionPlan | None,
    earlier: tuple[EarlierAttempt, ...] = (),
) -> EngineCall:
    """The call by which an engine answers a request, or gives the rest of its answer.

    `earlier`: what the ledger is told of the attempts before.
    """
    path, body = request.path, request.body
    if earlier and dispatch.origin is not None:
        origin = msgspec.structs.replace(dispatch.origin, earlier=earlier)
        dispatch = msgspec.structs.replace(dispatch, origin=origin)
    if rest is not None and rest.body is not None:
        path, body = rest.path, rest.body
        dispatch = _resuming(dispatch, rest.answered_bytes)
        if dispatch.origin is not None and rest.answered_bytes:
            origin = msgspec.structs.replace(dispatch.origin, is_continuation=True)
            dispatch = msgspec.structs.replace(dispatch, origin=origin)
    request_id = request.engine_id or request.request_id
    return EngineCall(path, request.headers, body, request_id, _header(dispatch))


async def plan_rest(
    target: Target, stream_log: StreamLog, engines: EngineClient, replica: Replica
) -> ResumptionPlan:
    """Plan how a replica gives the rest of an answer.

    Raises:
        StreamLost: it cannot be resumed.
    """
    request = target.request
    alone = Dispatch(id=0, model=target.renamed)

    def tokenize(body: bytes, answered_bytes: int) -> Awaitable[list[int] | None]:
        dispatch = _header(_resuming(alone, answered_bytes))
        call = EngineCall(TOKENIZE, request.headers, body, request.request_id, dispatch)
        return engines.tokenize(call, replica)

    try:
        return await plan_resumption(request.path, request.body, stream_log, tokenize)
    except Unresumable as error:
        raise StreamLost(f"The engine broke off before the end. {error}") from None


def _resuming(dispatch: Dispatch, answered_bytes: int) -> Dispatch:
    """A dispatch from which the engine learns nothing: its prompt is longer than the keys say."""
    return msgspec.structs.replace(
        dispatch, answered_bytes=answered_bytes, prompt_bytes=0, reply_start=None
    )


def _header(dispatch: Dispatch) -> Headers:
    return [(DISPATCH, dispatch.encode())]
