"""One request's way to an answer: admitted, sent, sent elsewhere where that fails, carried on.

Until a client has been sent any of its answer, a failed attempt is followed by another on another
replica, at most `RETRIES` times and within the model's budget. A stream that breaks later is
carried on by another replica where that is sound (`gateway.relay.resume`). What cannot be mended is
told to the client: as an error, or, in a stream that has begun, as an event.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field

import msgspec

from gateway.admission.admission import Wish
from gateway.admission.admissions import Admissions
from gateway.api.errand import Errand
from gateway.api.incidents import ANSWERED_5XX, Incidents
from gateway.api.routes import PROMPT_ROUTES
from gateway.api.selection import Selection
from gateway.errors import (
    BROKE_OFF,
    DeadlineExceeded,
    GatewayError,
    StreamLost,
    UpstreamFailed,
)
from gateway.faults import Action, Faults
from gateway.relay.asgi import Headers
from gateway.relay.budget import RetryBudget
from gateway.relay.events import pass_events
from gateway.relay.headers import to_client
from gateway.relay.heartbeat import Heartbeat
from gateway.relay.inquiry import Unresumable
from gateway.relay.journal import Journal
from gateway.relay.relay import TOKENIZE, Call, Relay, pass_bytes, read_whole
from gateway.relay.reply import Reply
from gateway.relay.response import Response
from gateway.relay.resume import Resumption, resumption
from gateway.relay.splice import Diverged
from gateway.relay.sse import WholeEvents, error_event, late_answer
from gateway.relay.upstream import UNREACHABLE
from gateway.request import parse_json
from gateway.routing.decision import Decision
from gateway.routing.fleet import Replica
from gateway.routing.prefix import NO_PROMPT, Prompt, prompt_of
from gateway.telemetry import DISPATCH, Dispatch

RETRIES = 2
"""Attempts beside the first one."""
RESUMES = 8
"""How often one stream is carried on."""
LAST_WORDS_S = 0.01
"""A replica that dies breaks all its connections off at once, that of its telemetry as well."""
FREE = frozenset({UNREACHABLE, "draining", "stuck"})
"""Reasons of failures that no engine goes on working for: to try elsewhere multiplies nothing."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all deliveries share."""

    relay: Relay
    admissions: Admissions
    faults: Faults = field(default_factory=Faults)
    budgets: Mapping[str, RetryBudget] = field(default_factory=lambda: defaultdict(RetryBudget))
    """By the model's name."""
    is_forwarded: bool = False
    """A proxy of ours names the client in `x-forwarded-for`."""


class Delivery:
    """Brings one errand's answer to `reply`."""

    def __init__(self, errand: Errand, selection: Selection, means: Means, reply: Reply) -> None:
        self._errand = errand
        self._selection = selection
        self._means = means
        self._incidents = Incidents(selection, means.faults)
        self._reply = reply
        self._headers = reply.headers
        self._events = WholeEvents()
        is_journaled = errand.is_stream and errand.is_resumable
        self._journal = Journal() if is_journaled else None
        self._carrying: Resumption | None = None
        self._last = b""
        """The latest bytes of a stream that the client was sent."""
        self._is_committed = False
        """Part of an answer that is no stream has gone out."""
        self._replica: Replica | None = None
        self._tried: set[str] = set()
        self._retries = self._resumes = 0

    async def run(self) -> None:
        """Answer.

        Raises:
            GatewayError: the client has not been told yet; where `reply` has begun, it cannot be.
        """
        try:
            if self._errand.is_stream:
                async with Heartbeat(self._reply, lambda: not self._events.is_torn):
                    await self._deliver_in_time()
            else:
                await self._deliver_in_time()
        except GatewayError as error:
            self._incidents.told(self._replica, error, is_cut=bool(self._last))
            if not self._reply.has_begun or self._is_committed:
                raise
            end = self._events.cut() + error_event(error, self._errand.path, self._last)
            await self._reply.finish(end)

    async def _deliver_in_time(self) -> None:
        limits = (self._errand.timeout_s, self._selection.model.timeout_s)
        timeout_s = min((limit for limit in limits if limit is not None), default=None)
        if timeout_s is None:
            await self._deliver()
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._deliver()
        except TimeoutError:
            raise DeadlineExceeded(f"The answer took longer than {timeout_s:g} s.") from None

    async def _deliver(self) -> None:
        selection, errand = self._selection, self._errand
        wish = Wish(
            selection.choose,
            selection.prompt,
            errand.tenant,
            is_batch=errand.is_batch,
            size_bytes=len(errand.body),
        )
        self._means.budgets[selection.model.name].earn()
        decision = await self._means.admissions.of(selection.model).admit(wish)
        while not await self._succeeds(decision):
            decision = selection.choose(self._tried)
            decision.is_batch = errand.is_batch

    async def _succeeds(self, decision: Decision) -> bool:
        """Make an attempt; False if there is to be another."""
        try:
            await self._attempt(decision)
        except UpstreamFailed as error:
            self._tried.add(decision.replica.id)
            self._incidents.blame(decision.replica, error)
            await self._mend(decision.replica, error)
            return False
        return True

    async def _attempt(self, decision: Decision) -> None:
        errand, prompt = self._errand, self._selection.prompt
        path, body, answered_bytes = errand.path, errand.body, 0
        self._replica = decision.replica
        if self._last:
            carrying = self._carrying = await self._carry_on(decision.replica)
            if carrying.body is None:
                await self._reply.finish(carrying.ending)
                return
            path, body, answered_bytes = carrying.path, carrying.body, carrying.answered_bytes
            prompt = _prompt(path, body)
        dispatcher = self._selection.dispatcher
        with dispatcher.sending(decision, prompt) as dispatch:
            call = Call(
                *(path, errand.headers, body, errand.request_id), _word(dispatch, answered_bytes)
            )
            response = await self._means.relay.open(call, decision.replica)
            try:
                await self._pass_on(response, decision)
            finally:
                response.close()
        if response.status < 500:
            dispatcher.outliers.succeed(decision.replica.id)
        else:
            failure = _answered(response.status)
            self._incidents.blame(decision.replica, failure)
            self._incidents.told(decision.replica, failure, is_cut=False)

    async def _carry_on(self, replica: Replica) -> Resumption:
        if self._journal is None:
            raise StreamLost("The engine broke off before its answer was complete.")
        errand = self._errand

        def tokenize(body: bytes, answered_bytes: int) -> Awaitable[list[int] | None]:
            word = _word(Dispatch(id=0), answered_bytes)
            call = Call(TOKENIZE, errand.headers, body, errand.request_id, word)
            return self._means.relay.tokenize(call, replica)

        try:
            return await resumption(errand.path, errand.body, self._journal, tokenize)
        except Unresumable as error:
            raise StreamLost(f"The engine broke off before the end. {error}") from None

    async def _pass_on(self, response: Response, decision: Decision) -> None:
        status = response.status
        if status >= 500 and (self._last or self._can_retry):
            raise _answered(status)
        self._tell(decision)
        if _is_events(response) and status == 200:
            await self._pass_stream(response)
        elif self._last:
            raise StreamLost(f"The engine broke off, and another refused to go on ({status}).")
        elif self._reply.has_begun:
            await self._reply.finish(late_answer(await read_whole(response), self._errand.path))
        else:
            first = await read_whole(response)
            self._is_committed = True
            await self._reply.begin(status, to_client(response.headers))
            await pass_bytes(response, first, self._reply)

    async def _pass_stream(self, response: Response) -> None:
        if not self._reply.has_begun:
            await self._reply.begin(response.status, to_client(response.headers))
        self._events = WholeEvents()
        try:
            last = await pass_events(response, self._events, self._pass)
            if self._carrying is not None:
                last = self._carrying.splice.feed(last)
        except Diverged:
            raise StreamLost("The engine broke off, and another gave a different answer.") from None
        await self._reply.finish(last)

    async def _pass_spliced(self, events: bytes, carrying: Resumption) -> None:
        if chunk := carrying.splice.feed(events):
            await self._send(chunk)

    def _pass(self, events: bytes) -> Awaitable[None]:
        if self._carrying is not None:
            return self._pass_spliced(events, self._carrying)
        return self._send(events)

    def _send(self, events: bytes) -> Awaitable[None]:
        if self._journal is not None:
            self._journal.add(events)
        self._last = events
        return self._reply.part(events)

    @property
    def _can_retry(self) -> bool:
        is_left = self._means.budgets[self._selection.model.name].is_left
        return is_left and not self._last and self._retries < RETRIES

    async def _mend(self, replica: Replica, error: UpstreamFailed) -> None:
        """Get ready for another attempt, or raise `error` if there is to be none."""
        if self._is_committed:
            raise error
        if self._last:
            self._resumes += 1
            if self._journal is None or self._resumes > RESUMES:
                raise error
            self._incidents.mended(replica, error, Action.RESUMED)
            return
        model = self._selection.model
        is_free = error.reason in FREE or await self._has_died(replica, error)
        if self._retries == RETRIES or not (is_free or self._means.budgets[model.name].spend()):
            raise error
        self._retries += 1
        self._incidents.mended(replica, error, Action.RETRIED)

    async def _has_died(self, replica: Replica, error: UpstreamFailed) -> bool:
        if error.reason != BROKE_OFF:
            return False
        await asyncio.sleep(LAST_WORDS_S)
        return not self._selection.dispatcher.follows(replica.id)

    def _tell(self, decision: Decision) -> None:
        headers = [
            *self._headers,
            (b"x-gateway-replica", decision.replica.id.encode()),
            (b"x-gateway-cached-tokens", b"%d" % decision.cached_tokens),
        ]
        if self._retries:
            headers.append((b"x-gateway-retries", b"%d" % self._retries))
        if self._errand.is_explained:
            headers.append((b"x-gateway-decision", decision.encode()))
        self._reply.headers = headers


def _answered(status: int) -> UpstreamFailed:
    return UpstreamFailed(f"The engine answered {status}.", ANSWERED_5XX)


def _is_events(response: Response) -> bool:
    for name, value in response.headers:
        if name == b"content-type":
            return value.startswith(b"text/event-stream")
    return False


def _word(dispatch: Dispatch, answered_bytes: int) -> Headers:
    if answered_bytes:
        dispatch = msgspec.structs.replace(dispatch, answered_bytes=answered_bytes)
    return [(DISPATCH, dispatch.encode())]


def _prompt(path: str, body: bytes) -> Prompt:
    return prompt_of(parse_json(body)) if path in PROMPT_ROUTES else NO_PROMPT
