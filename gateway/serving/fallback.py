"""One request's way through the models that may answer it, until its answer has ended.

The first of its course is tried, and then each of its fallbacks, until one has begun to answer: a
model is passed over that is unknown, unavailable, cold (where its entry says so) or overloaded
beyond its wait limit, that fails in spite of retries, or whose context is too short.

A request waits for a model of which no engine runs. If it is to be answered by a stream, its client
is told meanwhile, in headers and comments.
"""

import asyncio

from gateway import header_names
from gateway.errors import (
    AdapterBroken,
    ContextExceeded,
    DeadlineExceeded,
    GatewayError,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    UnsupportedRoute,
    UpstreamFailed,
)
from gateway.faults import Action, Fault
from gateway.metrics import NO_MODEL
from gateway.request.inference_request import InferenceRequest
from gateway.request.routes import STREAMED
from gateway.routing.fleet import ModelState, ServedModel
from gateway.serving.attempts import Attempts, RouterContext, patience_s
from gateway.serving.client_response import ClientResponse
from gateway.serving.heartbeat import COMMENT, PERIOD_S, Heartbeat
from gateway.serving.response_writer import ResponseWriter
from gateway.serving.target_resolver import TargetResolver
from gateway.serving.timing import QUEUE, ROUTE

COLD_COMMENT_S = 1.0
"""After which the client of a stream is told that an engine starts: until then, an error may be
told by its status."""
FALLS_BACK = (
    *(ModelNotFound, ModelUnavailable, UnsupportedRoute, AdapterBroken),
    *(Overloaded, UpstreamFailed, ContextExceeded),
)
NEVER = (ModelNotFound, UnsupportedRoute)
"""Of these, those that another try would not change."""


class FallbackChain:
    """Brings one errand's answer to `reply`; `route`: the models that may answer, in order."""

    def __init__(
        self,
        request: InferenceRequest,
        route: tuple[str, ...],
        resolver: TargetResolver,
        context: RouterContext,
        reply: ClientResponse,
    ) -> None:
        self._request = request
        self._route = route
        self._resolver = resolver
        self._context = context
        is_journaled = request.head.is_stream and request.is_resumable
        self._is_stream = request.head.is_stream and request.path in STREAMED
        self._writer = ResponseWriter(
            request.path, reply, is_journaled=is_journaled, has_heartbeat=self._is_stream
        )
        self._headers = reply.headers
        self.failure: GatewayError | None = None
        """What the client was told in place of an answer, or of its end."""
        self._name = route[0]
        """Of the model that is to answer now."""
        self._attempts: Attempts | None = None
        self._heartbeat: Heartbeat | None = None
        self._due_s: float | None = None

    @property
    def asked(self) -> str:
        """What the client calls the model."""
        return self._request.head.model

    @property
    def model(self) -> str:
        """The model or adapter that answers, or was the last to be tried; never a made up name."""
        return self._name if self._resolver.knows(self._name) else NO_MODEL

    async def run(self) -> None:
        """Answer.

        Raises:
            GatewayError: the client has not been told yet; where `reply` has begun, it cannot be.
        """
        writer = self._writer
        try:
            if self._is_stream:
                beating = Heartbeat(writer.reply, writer.begin, lambda: writer.is_between)
                async with beating as self._heartbeat:
                    await self._go_in_time()
            else:
                await self._go_in_time()
        except GatewayError as error:
            self.failure = error
            self._note(error)
            if not writer.reply.has_begun or writer.is_committed:
                raise
            await writer.end(error)

    async def _go_in_time(self) -> None:
        timeout_s = self._timeout_s()
        if timeout_s is None:
            await self._go()
            return
        self._due_s = self._request.arrived_s + timeout_s
        try:
            async with asyncio.timeout_at(self._due_s):
                await self._go()
        except TimeoutError:
            raise DeadlineExceeded(f"The answer took longer than {timeout_s:g} s.") from None

    def _timeout_s(self) -> float | None:
        first, resolver = self._route[0], self._resolver
        models_s = resolver.model(first).options.timeout_s if resolver.knows(first) else None
        limits = (self._request.timeout_s, models_s)
        return min((limit for limit in limits if limit is not None), default=None)

    async def _go(self) -> None:
        # What is not deployed is passed over, unless nothing is.
        last = next(filter(self._resolver.knows, reversed(self._route)), self._route[-1])
        failure: GatewayError | None = None
        for name in self._route:
            self._name = name
            try:
                await self._have_answered(name, has_alternative=name != last)
            except FALLS_BACK as error:
                is_told = self._writer.has_sent or self._writer.is_committed
                if not isinstance(error, NEVER):
                    failure = error
                elif name == last and failure is not None:
                    raise failure from None  # that model may answer another time
                if name == last or is_told:
                    raise
                self._pass_on(error)
            else:
                return

    async def _have_answered(self, name: str, *, has_alternative: bool) -> None:
        self._attempts = None
        self._writer.reply.headers = self._headers
        model = self._resolver.model(name)
        was_cold = not model.replicas
        if was_cold:
            await self._warm(model, has_alternative=has_alternative)
        if has_alternative and (reason := model.adapter_error(name)):
            raise AdapterBroken(name, reason)
        self._writer.has_alternative = has_alternative
        with self._writer.reply.timing.step(ROUTE):
            target = self._resolver.target(self._request, name)
        self._attempts = Attempts(
            target,
            self._context,
            self._writer,
            due_s=self._due_s,
            patience_s=patience_s(self._request, model) if was_cold else 0.0,
        )
        await self._attempts.run()

    async def _warm(self, model: ServedModel, *, has_alternative: bool) -> None:
        """Wait until an engine runs.

        Raises:
            ModelUnavailable: there is an alternative that is not to wait, or no engine will run.
            Overloaded: too many wait already.
        """
        cold_starts = self._context.cold_starts
        is_failing = model.state is ModelState.UNHEALTHY
        if has_alternative and (is_failing or model.options.when_cold == "fallback"):
            cold_starts.ask(model)
            message = f"The model `{model.name}` is {model.condition}: {model.reason}"
            raise ModelUnavailable(message, cold_starts.expected_s(model))
        reply, loop = self._writer.reply, asyncio.get_running_loop()
        began_s = loop.time()
        if self._heartbeat is not None:
            expected_s = b"%.1f" % cold_starts.expected_s(model)
            reply.headers = [
                *self._headers,
                (header_names.STATE, model.state.encode()),
                (header_names.EXPECTED_START, expected_s),
            ]
            self._heartbeat.comment = b": the model is starting\n\n"
            self._heartbeat.hasten(COLD_COMMENT_S)
        try:
            with reply.timing.step(QUEUE):
                await cold_starts.wait(model, self._request, self._due_s)
        finally:
            reply.headers = self._headers
            if self._heartbeat is not None:
                self._heartbeat.comment = COMMENT
                self._heartbeat.hasten(PERIOD_S)
        waited_s = b"%.1f" % (loop.time() - began_s)
        reply.headers = [*self._headers, (header_names.COLD_START, waited_s)]

    def _pass_on(self, error: GatewayError) -> None:
        if self._attempts is not None:
            self._attempts.pass_on(error)
        else:
            self._fault(error, Action.FELL_BACK)

    def _note(self, error: GatewayError) -> None:
        """Have it known that the client is told of an error."""
        if self._attempts is not None:
            self._attempts.tell(error)
        elif isinstance(error, Overloaded):
            self._fault(error, Action.SHED)
        elif error.status >= 500:
            self._fault(error, Action.FAILED)

    def _fault(self, error: GatewayError, action: Action) -> None:
        # A name that is no model's must not become a label: clients can invent many.
        is_known = self._resolver.knows(self._name)
        model = self._resolver.model(self._name).name if is_known else NO_MODEL
        request_id = self._request.request_id.decode()
        fault = Fault(model, error.code, action)
        self._context.faults.record(fault, request_id=request_id, message=str(error))
