"""Fallback chain of one request: the models that may answer it, tried in order.

The first model of the route is tried, and then each of its fallbacks, until one has begun to
answer. A model is skipped if it is unknown, unavailable, cold (and its entry says so), overloaded
beyond its wait limit, or failing in spite of retries, or if its context is too short.

A request waits for a model without engines to start. Meanwhile, headers and comments inform the
client of a stream.
"""

import asyncio
from collections.abc import Sequence

from gateway import header_names
from gateway.asgi import Headers
from gateway.errors.gateway_error import GatewayError
from gateway.errors.limits import Overloaded
from gateway.errors.request import AdapterBroken
from gateway.errors.upstream import DeadlineExceeded, ModelUnavailable
from gateway.faults import Action, Fault
from gateway.limits.claim import Claim
from gateway.limits.project_limits import ProjectLimits
from gateway.metrics import NO_MODEL
from gateway.request.inference_request import InferenceRequest
from gateway.request.routes import STREAMED
from gateway.routing.decision import Decision
from gateway.routing.fleet import ModelState, ServedModel
from gateway.routing.target import Target
from gateway.serving.attempts import Attempts
from gateway.serving.client_response import ClientResponse
from gateway.serving.fallback_policy import FallbackDecision, fallback_decision, is_permanent
from gateway.serving.heartbeat import Heartbeat
from gateway.serving.response_writer import ResponseWriter
from gateway.serving.router_context import RouterContext
from gateway.serving.target_resolver import TargetResolver
from gateway.serving.timing import QUEUE, ROUTE

COLD_COMMENT_S = 1.0
"""Silence after which the client of a stream is informed that an engine starts. Until then, the
response has not begun, and an error can still have its own status."""
COLD_COMMENT = b": the model is starting\n\n"


class FallbackChain:
    """Has one request answered by the first model of its route that can; `route`: names of models.

    The answer goes to `response`.
    """

    def __init__(
        self,
        request: InferenceRequest,
        route: tuple[str, ...],
        resolver: TargetResolver,
        context: RouterContext,
        response: ClientResponse,
    ) -> None:
        self._request = request
        self._route = route
        self._resolver = resolver
        self._context = context
        self._response = response
        self._is_stream = request.head.is_stream and request.path in STREAMED
        self._writer = ResponseWriter(
            request.path,
            response,
            is_resumable=request.head.is_stream and request.is_resumable,
            has_heartbeat=self._is_stream,
        )
        self.failure: GatewayError | None = None
        """Error that the client got in place of an answer, or of its end."""
        self._name = route[0]
        """Name of the model that is tried now."""
        self._attempts: Attempts | None = None
        self._heartbeat: Heartbeat | None = None
        self._deadline_s: float | None = None

    @property
    def request(self) -> InferenceRequest:
        """The request that is answered."""
        return self._request

    @property
    def decisions(self) -> Sequence[Decision]:
        """Decisions on all attempts so far."""
        return self._writer.decisions

    @property
    def is_batch(self) -> bool:
        """Whether the request may wait for all interactive ones."""
        return self._request.is_batch

    @property
    def model(self) -> str:
        """The model or adapter that was tried last; never a name that a client has made up."""
        return self._name if self._resolver.knows(self._name) else NO_MODEL

    async def run(self) -> None:
        """Have the request answered.

        Raises:
            GatewayError: the client does not know of it yet, and cannot if `response` has begun.
        """
        writer = self._writer
        try:
            with self._context.drain.request():
                if self._is_stream:
                    async with self._new_heartbeat() as self._heartbeat:
                        await self._run_until_deadline()
                else:
                    await self._run_until_deadline()
        except GatewayError as error:
            self.failure = error
            self._report_failure(error)
            if not self._response.has_begun or writer.is_committed:
                raise
            await writer.fail(error)

    def _new_heartbeat(self) -> Heartbeat:
        writer = self._writer
        return Heartbeat(
            self._response,
            writer.begin,
            lambda: writer.is_between_events,
            writer.signs_of_life.after,
        )

    async def _run_until_deadline(self) -> None:
        timeout_s = self._timeout_s()
        if timeout_s is None:
            await self._try_models()
            return
        self._deadline_s = self._request.arrived_s + timeout_s
        try:
            async with asyncio.timeout_at(self._deadline_s):
                await self._try_models()
        except TimeoutError:
            raise DeadlineExceeded(f"The answer took longer than {timeout_s:g} s.") from None

    def _timeout_s(self) -> float | None:
        first, resolver = self._route[0], self._resolver
        models_s = resolver.model(first).options.timeout_s if resolver.knows(first) else None
        limits = (self._request.timeout_s, models_s)
        return min((limit for limit in limits if limit is not None), default=None)

    async def _try_models(self) -> None:
        # A model that is not deployed is skipped, unless none is.
        last = next(filter(self._resolver.knows, reversed(self._route)), self._route[-1])
        earlier: GatewayError | None = None
        for name in self._route:
            self._name = name
            try:
                await self._try_model(name, has_alternative=name != last)
            except GatewayError as error:
                self._check_fallback(error, earlier, is_last=name == last)
                if not is_permanent(error):
                    earlier = error
            else:
                return

    def _check_fallback(
        self, error: GatewayError, earlier: GatewayError | None, *, is_last: bool
    ) -> None:
        """Report that the next model answers, or raise the error for the client."""
        step = fallback_decision(
            error,
            is_last=is_last,
            has_begun=self._writer.has_sent or self._writer.is_committed,
            has_earlier=earlier is not None,
        )
        if step is FallbackDecision.RAISE_EARLIER and earlier is not None:
            raise earlier from None
        if step is not FallbackDecision.NEXT_MODEL:
            raise error
        if self._attempts is not None:
            self._attempts.report_fallback(error)
        else:
            self._record_fault(error, Action.FELL_BACK)

    async def _try_model(self, name: str, *, has_alternative: bool) -> None:
        self._attempts = None
        self._response.clear_annotations()
        model = self._resolver.model(name)
        cold_start_s = None
        if not model.replicas:
            self._check_limits(model, name)  # no engine starts in vain
            cold_start_s = await self._start(model, has_alternative=has_alternative)
        if has_alternative and (reason := model.adapter_error(name)):
            raise AdapterBroken(name, reason)
        with self._response.timing.step(ROUTE):
            target = self._resolver.target(self._request, name)
            claim = self._claim(target)
        self._attempts = Attempts(
            target,
            self._context,
            self._writer,
            has_alternative=has_alternative,
            deadline_s=self._deadline_s,
            cold_start_s=cold_start_s,
            claim=claim,
        )
        try:
            await self._attempts.run()
        finally:
            if claim is not None:
                claim.record_ended()

    @property
    def _limits(self) -> ProjectLimits | None:
        """Limits of projects, if the request's project has any."""
        limits = self._context.limits
        return limits if limits is not None and limits.apply_to(self._request) else None

    def _claim(self, target: Target) -> Claim | None:
        """Set aside what the request will take of its project's limits.

        Raises:
            RateLimited: they do not allow it now.
        """
        if (limits := self._limits) is None:
            return None
        scheduler = self._context.pools.of(target.model).scheduler
        try:
            claim = limits.claim(target, scheduler, self._writer.attempts)
        except GatewayError:
            self._response.limits = limits.headers(self._request, target.name)
            raise
        self._response.limits = limits.headers(self._request, target.name, claim)
        return claim

    async def _start(self, model: ServedModel, *, has_alternative: bool) -> float:
        """Wait until an engine runs; returns for how many seconds.

        Raises:
            ModelUnavailable: there is an alternative that need not wait, or no engine will run.
            Overloaded: too many requests wait already.
        """
        cold_start = self._context.pools.of(model).cold_start
        is_failing = model.state is ModelState.UNHEALTHY
        if has_alternative and (is_failing or model.options.when_cold == "fallback"):
            cold_start.request_start()
            message = f"The model `{model.name}` is {model.condition}: {model.reason}"
            raise ModelUnavailable(message, cold_start.expected_s)
        timing = self._response.timing
        began_s = timing.now()
        self._announce_start(model, cold_start.expected_s)
        try:
            with timing.step(QUEUE):
                await cold_start.wait(self._request, deadline_s=self._deadline_s)
        finally:
            self._response.clear_annotations()
            if self._heartbeat is not None:
                self._heartbeat.resume()
        waited_s = timing.now() - began_s
        self._response.annotate([(header_names.COLD_START, b"%.1f" % waited_s)])
        return waited_s

    def _check_limits(self, model: ServedModel, name: str) -> None:
        """Refuse a request that the model's limits or its project's will refuse in any case."""
        self._resolver.check_limits(self._request, model)
        if (limits := self._limits) is None:
            return
        try:
            limits.check(self._request, model.name, "" if name == model.name else name)
        finally:  # a stream may begin before its model has started
            self._response.limits = limits.headers(self._request, name)

    def _announce_start(self, model: ServedModel, expected_s: float) -> None:
        """Prepare the headers and comments of a stream that begins before its model has started."""
        if self._heartbeat is not None:
            headers: Headers = [
                (header_names.STATE, model.state.encode()),
                (header_names.EXPECTED_START, b"%.1f" % expected_s),
            ]
            self._response.annotate(headers)
            self._heartbeat.announce(COLD_COMMENT, COLD_COMMENT_S)

    def _report_failure(self, error: GatewayError) -> None:
        if self._attempts is not None:
            self._attempts.report_failure(error)
        elif isinstance(error, Overloaded):
            self._record_fault(error, Action.SHED)
        elif error.status >= 500:
            self._record_fault(error, Action.FAILED)

    def _record_fault(self, error: GatewayError, action: Action) -> None:
        # A name that is no model's must not become a label: clients can invent many.
        is_known = self._resolver.knows(self._name)
        model = self._resolver.model(self._name).name if is_known else NO_MODEL
        fault = Fault(model, error.code, action)
        name = self._request.log_name
        self._context.faults.record(fault, request_id=name, message=str(error))
