"""Answers to requests that refer to what State keeps, or whose answer it is to keep."""

import time
from collections.abc import Callable
from functools import partial

from gateway.asgi import FIELDS
from gateway.header_names import CONTENT_ENCODING
from gateway.request.inference_request import InferenceRequest
from gateway.request.labels import read_labels
from gateway.request.routes import CHAT
from gateway.responses.background import BackgroundResponses
from gateway.responses.chat_keeper import ChatKeeper
from gateway.responses.expansion import (
    alone_in_engines,
    expanded,
    resolved_items,
    without_store,
)
from gateway.responses.plan import ResponsePlan, concerns_state, own_items, response_plan
from gateway.responses.queued_response import queued_object
from gateway.responses.response_edits import Fields, kept_response, to_raw
from gateway.responses.response_keeper import ResponseKeeper
from gateway.responses.state_calls import StateCalls, state_down
from gateway.serving.body import replayed
from gateway.serving.client_response import ClientResponse
from gateway.serving.disconnect import UntilDisconnect
from gateway.serving.handler import AnswerMaker, ClientCall
from gateway.serving.state_client import StateClient, StateUnavailable
from gateway.upstream.sse import RESPONSES

BODY_HEADERS = frozenset(
    {b"content-length", b"content-type", b"transfer-encoding", CONTENT_ENCODING}
)


class KeptAnswers:
    """Resolves what requests refer to, and has their answers kept.

    `keeps`: whether responses are kept unless their clients say otherwise.
    """

    def __init__(
        self, state: StateClient, *, keeps: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        self._state = state
        self._calls = StateCalls(state)
        self._background = BackgroundResponses(self._calls)
        self._keeps = keeps
        self._clock = clock

    def concerns(self, request: InferenceRequest) -> bool:
        """Whether a request needs this."""
        return concerns_state(request, keeps=self._keeps)

    async def answer(self, request: InferenceRequest, maker: AnswerMaker, call: ClientCall) -> None:
        """Answer such a request.

        Raises:
            GatewayError: `response` has not begun.
            ClientDisconnected: the client has left.
        """
        if request.path == CHAT:
            async with UntilDisconnect(call.receive, call.response):
                await self._answer_chat(request, maker, call)
            return
        plan = response_plan(request, keeps=self._keeps)
        if plan.is_background:
            queued = await self._begin(request, plan, maker, call)
            if request.head.is_stream:
                await self._follow(plan, call)
            else:
                await _answer_with(queued, call.response)
            return
        async with UntilDisconnect(call.receive, call.response):
            await self._answer(request, plan, maker, call)

    async def close(self) -> None:
        """Give up the responses in the background."""
        await self._background.close()

    async def _answer_chat(
        self, request: InferenceRequest, maker: AnswerMaker, call: ClientCall
    ) -> None:
        labels = read_labels(request.head.fields.metadata)
        await self._calls.check(request.project)
        call.response.add_filter(ChatKeeper(request, labels, self._calls, call.response))
        await maker.run(alone_in_engines(without_store(request)), call.response)

    async def _answer(
        self, request: InferenceRequest, plan: ResponsePlan, maker: AnswerMaker, call: ClientCall
    ) -> None:
        sent, own = request, None
        if plan.needs_items:
            sent, own = await self._expanded(request, plan, call)
        elif plan.must_be_kept:
            await self._calls.check(request.project)
        if request.path == RESPONSES and (plan.is_kept or plan.needs_items):
            # Read again in the end, if they are needed then, rather than held until then.
            items = partial(own_items, request) if own is None else lambda: own
            response = call.response
            keeper = ResponseKeeper(plan, request.project, self._calls, items, response)
            response.add_filter(keeper)
        await maker.run(sent, call.response)

    async def _expanded(
        self,
        request: InferenceRequest,
        plan: ResponsePlan,
        call: ClientCall,
        *,
        is_stream: bool | None = None,
    ) -> tuple[InferenceRequest, list[bytes]]:
        """The request with all its items, and its own items."""
        earlier, own = await resolved_items(request, plan, self._calls, call.max_body_mb, call.held)
        sent = expanded(request, [*earlier, *own], call.max_body_mb, is_stream=is_stream)
        return sent, own

    async def _begin(
        self, request: InferenceRequest, plan: ResponsePlan, maker: AnswerMaker, call: ClientCall
    ) -> Fields:
        """Begin a response in the background; its object."""
        sent, own = await self._expanded(request, plan, call, is_stream=True)
        queued = queued_object(request, plan, int(self._clock()))
        try:
            await self._calls.keep(request.project, kept_response(plan, own, queued))
        except StateUnavailable:
            raise state_down() from None
        self._background.begin(
            request.project, plan, queued, lambda answer: maker.run_alone(sent, answer)
        )
        return queued

    async def _follow(self, plan: ResponsePlan, call: ClientCall) -> None:
        """Answer with the events of a response in the background, as State has them."""
        path, scope = f"/v1/responses/{plan.id}", call.scope
        asked = dict(
            scope,
            method="GET",
            path=path,
            raw_path=path.encode(),
            query_string=b"stream=true",
            headers=[each for each in scope["headers"] if each[0] not in BODY_HEADERS],
        )
        asked.pop(FIELDS, None)
        # The body has been read, and what is asked now has none.
        await self._state.forward(asked, replayed(b"", call.receive), call.response)


async def _answer_with(fields: Fields, response: ClientResponse) -> None:
    body = bytes(to_raw(fields))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await response.begin(200, headers)
    await response.finish(body)
