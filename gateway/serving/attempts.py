"""Attempts at having one model answer a request: admitted, sent, retried or resumed elsewhere.

`RetryPolicy` decides what follows a failed attempt. Where the model has no replica left, the
request waits for one as it would have at first. A failure from which no other attempt recovers is
raised.
"""

from gateway import header_names
from gateway.admission.queued_request import QueuedRequest
from gateway.errors.gateway_error import GatewayError
from gateway.errors.limits import RateLimited
from gateway.errors.upstream import ModelUnavailable, Reason, StreamLost, UpstreamFailed
from gateway.faults import Action
from gateway.limits.claim import Claim
from gateway.resume.resumption import ResumptionPlan
from gateway.routing.decision import Decision
from gateway.routing.fleet import Replica
from gateway.routing.target import Target
from gateway.serving.attempt_call import engine_call, plan_rest
from gateway.serving.attempt_waits import AttemptWaits
from gateway.serving.failure_reporter import FailureReporter
from gateway.serving.ledger_entries import LedgerEntries
from gateway.serving.response_writer import ResponseWriter
from gateway.serving.retry_policy import NO_PROGRESS, Failure, RetryDecision
from gateway.serving.router_context import RouterContext
from gateway.serving.timing import CONNECT, ENGINE, QUEUE, ROUTE
from gateway.telemetry.dispatch import Dispatch
from gateway.upstream.engine_call import EngineCall, read_all
from gateway.upstream.response import EngineResponse

MAX_STARTS = 8
"""Times that one request waits for its model to start again."""
ENGINE_FAULTS = frozenset({500, 502, 503, 504})
"""Statuses that mean a fault of the engine; 501 is the client's mistake."""
UNREACHED = frozenset({Reason.UNREACHABLE, Reason.NO_SOCKET, Reason.DRAINING, Reason.KEY})
"""Reasons for which an engine has done nothing for a request."""


class Attempts:
    """Attempts at having one model answer a request.

    `has_alternative`: another model may answer in its place. `deadline_s`: when the answer must be
    there, by the event loop's clock. `cold_start_s`: how long the request has waited for the model
    to start, where it had to. `claim`: what it has set aside of its project's limits.
    """

    def __init__(  # noqa: PLR0913 - all but three have defaults
        self,
        target: Target,
        context: RouterContext,
        writer: ResponseWriter,
        *,
        has_alternative: bool = False,
        deadline_s: float | None = None,
        cold_start_s: float | None = None,
        claim: Claim | None = None,
    ) -> None:
        self._request = target.request
        self._target = target
        self._pool = context.pools.of(target.model)
        self._budget = self._pool.retry_budget(target.request)
        self._context = context
        self._writer = writer
        self._has_alternative = has_alternative
        self._failures = FailureReporter(target, self._pool.scheduler, context.faults)
        self._timing = writer.client_response.timing
        self._waits = AttemptWaits(
            target, self._pool, self._timing, deadline_s=deadline_s, cold_start_s=cold_start_s
        )
        self._ledger = (
            None
            if context.settlements is None or target.request.identity.is_open
            else LedgerEntries(target, self._pool, context.settlements, writer)
        )
        self._claim = claim
        self._replica: Replica | None = None
        self._progress = NO_PROGRESS

    async def run(self) -> None:
        """Have the request answered.

        Raises:
            GatewayError: the model does not answer, or not to the end.
        """
        await self._check_quarantine()
        decision = await self._admit()
        self._budget.earn()
        if self._ledger is None:
            await self._try_until_answered(decision)
            return
        with self._ledger:
            await self._try_until_answered(decision)

    def report_failure(self, error: GatewayError) -> None:
        """Report the error that the client gets."""
        self._failures.report_failure(self._replica, error, has_begun=self._writer.has_sent)

    def report_fallback(self, error: GatewayError) -> None:
        """Report the error that makes another model answer."""
        self._failures.report_fallback(self._replica, error)

    async def _check_quarantine(self) -> None:
        """Wait for the replica that the same request may have halted before.

        Raises:
            UpstreamFailed: that is not back in time, or engines have died under the request.
        """
        if (found := self._pool.quarantine.find(self._request)) is None:
            return
        error = UpstreamFailed("Engines stopped at the same request just now.", Reason.QUARANTINED)
        error.may_fall_back, error.is_final = False, True
        if found.is_banned:
            raise error
        (victim,) = found.victims
        self._begin_claim()
        with self._timing.step(QUEUE):
            await self._waits.for_return(victim, error)

    async def _admit(self) -> Decision:
        for _ in range(MAX_STARTS):
            try:
                return await self._submit()
            except ModelUnavailable:
                # Its last replica has gone while the request waited: another one has to start.
                self._begin_claim()
                await self._waits.for_start(has_alternative=self._may_go_elsewhere)
        return await self._submit()

    async def _submit(self) -> Decision:
        admission, request = self._pool.admission, self._waits.admission_request()
        with self._timing.step(ROUTE):
            if self._request.is_copy:
                return admission.submit_without_queueing(request)
            admitted = admission.submit(request)
        if isinstance(admitted, QueuedRequest):
            self._begin_claim()
            decision = await self._waits.in_queue(admitted)
            self._check_limits_again(decision)
            return decision
        return admitted

    def _begin_claim(self) -> None:
        """Set aside what the request takes of its project's limits: it waits from now on."""
        if self._claim is not None:
            self._claim.begin()

    def _check_limits_again(self, decision: Decision) -> None:
        """Refuse a request whose place in its project's limits others have taken while it waited.

        Raises:
            RateLimited: there is none left.
        """
        if self._claim is None:
            return
        try:
            self._claim.check_again(self._target.name)
        except RateLimited:
            self._pool.scheduler.replicas.publish(decision.replica.id)  # the next one may start
            raise

    @property
    def _may_go_elsewhere(self) -> bool:
        """Whether another model may answer in this one's place."""
        return self._has_alternative and not self._writer.has_sent

    async def _try_until_answered(self, decision: Decision) -> None:
        while not await self._try_once(decision):
            decision = (
                self._pool.scheduler.choose(self._target, self._waits.tried)
                if self._writer.has_sent
                else await self._admit()
            )

    async def _try_once(self, decision: Decision) -> bool:
        """Make an attempt; return False if another one must follow."""
        try:
            await self._attempt(decision)
        except UpstreamFailed as error:
            if error.reason in UNREACHED:
                self._record_unreached(decision)
            return await self._recover(decision, error)
        return True

    async def _recover(self, decision: Decision, error: UpstreamFailed) -> bool:
        """Prepare another attempt; return True if the client has got the engine's own error.

        Raises:
            UpstreamFailed: it is `error`, which no other attempt follows.
            ModelUnavailable: no replica has come that has not been tried.
        """
        replica = decision.replica
        self._waits.tried.add(replica.id)
        has_answered = self._writer.parts > self._progress.parts
        with self._timing.step(ENGINE):  # waiting for news of its death is waiting for the engine
            failure = await self._failures.assess(decision, error, has_answered=has_answered)
        step = self._retry_decision(failure)
        self._judge(error, replica if failure.has_silenced else None)
        if step is RetryDecision.GIVE_UP:
            error.is_final = error.is_final or not self._budget.is_left
            await self._give_up(decision, error)
            return True
        if step is RetryDecision.RETRY and not failure.is_free:
            self._budget.spend()
        self._progress = self._progress.after_step(step)
        action = Action.RESUMED if step is RetryDecision.RESUME else Action.RETRIED
        if step is RetryDecision.RETURN:
            with self._timing.step(QUEUE):
                await self._waits.for_return(replica.id, error)
        self._failures.expect_recovery(self._replica, error, action)
        if failure.is_free and step is not RetryDecision.RETURN:
            with self._timing.step(QUEUE):
                await self._waits.for_successor(has_alternative=self._may_go_elsewhere)
        return False

    async def _give_up(self, decision: Decision, error: UpstreamFailed) -> None:
        """Send the client the engine's own error, if it has answered with one.

        Raises:
            UpstreamFailed: it is `error`; there is no such answer, or another model may answer.
        """
        writer = self._writer
        if self._has_alternative or writer.has_sent or not error.engine_status:
            raise error
        self._annotate(decision)
        await writer.refuse(error)
        self._failures.report_failure(decision.replica, error, has_begun=False)

    def _judge(self, error: UpstreamFailed, victim: Replica | None) -> None:
        """Note what a failure says of the request: for its client, other models, and later ones.

        `victim`: the replica that the request may have halted.
        """
        policy, progress = self._context.retry_policy, self._progress
        is_blamed, is_harmful = policy.blames(progress), policy.is_harmful(progress)
        if is_blamed:
            is_harmful = is_harmful or self._failures.has_lost_replica
            self._failures.blame_request()
        error.is_final = policy.is_final(progress)
        error.may_fall_back = not is_harmful
        if is_blamed and is_harmful:
            self._pool.quarantine.add(self._request, self._failures.failed_at, is_banned=True)
        elif victim is not None:
            self._pool.quarantine.add(self._request, [victim.id])

    def _retry_decision(self, failure: Failure) -> RetryDecision:
        writer = self._writer
        if writer.parts > self._progress.parts:
            self._waits.restart()
        self._progress = self._progress.after_failure(
            failure,
            writer.parts,
            is_committed=writer.is_committed,
            is_resumable=writer.stream_log is not None,
        )
        policy = self._context.retry_policy
        return policy.next(failure, self._progress, has_budget=self._budget.is_left)

    async def _attempt(self, decision: Decision) -> None:
        """Send the request, or the rest of it, to a replica, and forward its answer."""
        writer, replica = self._writer, decision.replica
        self._replica = replica
        self._failures.record_attempt(replica)
        writer.attempts += 1
        writer.decisions.append(decision)
        reserved = None
        if self._claim is not None:
            reserved = self._claim.record_sending(decision.id, decision.cached_tokens)
        sending = self._pool.scheduler.sending
        is_counted = writer.is_counted
        with sending(
            decision, self._target, writer.attempts, reserved, is_counted=is_counted
        ) as dispatch:
            try:
                rest = await self._plan_rest(replica) if writer.has_sent else None
                if rest is not None and rest.body is None:
                    await writer.finish(rest.final_events)
                    self._failures.report_recovery()
                    return
                response = await self._answer_and_account(decision, dispatch, rest)
            finally:
                if self._pool.scheduler.is_reported(decision):
                    writer.is_counted = True
        self._record_answer(replica, response.status)

    async def _answer_and_account(
        self, decision: Decision, dispatch: Dispatch, rest: ResumptionPlan | None
    ) -> EngineResponse:
        ledger = self._ledger
        if ledger is None or dispatch.origin is None:
            return await self._answer(decision, dispatch, rest)
        ledger.begin_attempt(decision, dispatch.id, dispatch.origin, rest)
        try:
            response = await self._answer(decision, dispatch, rest)
        except BaseException as error:
            ledger.end_attempt(error)
            raise
        ledger.end_attempt(None)
        return response

    async def _answer(
        self, decision: Decision, dispatch: Dispatch, rest: ResumptionPlan | None
    ) -> EngineResponse:
        """Send the request, or the rest of it, and forward the answer, which is returned."""
        writer, replica = self._writer, decision.replica
        earlier = () if self._ledger is None else self._ledger.earlier
        response = await self._open(engine_call(self._request, dispatch, rest, earlier), replica)
        try:
            if response.status in ENGINE_FAULTS:
                raise UpstreamFailed.from_answer(response.status, await read_all(response))
            if response.status >= 400:
                self._record_refused(decision)
            self._annotate(decision)
            self._failures.report_recovery()
            if self._failures.is_unsettled and not writer.has_sent:
                # It has come further than the replica that failed, however long the stream is.
                writer.on_next_part = self._failures.settle
            await writer.forward(response, rest, has_alternative=self._has_alternative)
        finally:
            writer.on_next_part = None
            response.close()
        return response

    def _record_unreached(self, decision: Decision) -> None:
        """Record that no engine has worked on an attempt: the next one has its number."""
        self._writer.attempts -= 1
        if self._claim is not None:
            self._claim.record_refused(decision.id)

    def _record_refused(self, decision: Decision) -> None:
        """Record that the engine refuses the request: it takes nothing of it."""
        self._pool.scheduler.record_refused(decision)
        if self._claim is not None:
            self._claim.record_refused(decision.id)

    def _record_answer(self, replica: Replica, status: int) -> None:
        self._pool.quarantine.record_answer(self._request)
        if status >= 400:  # a refusal says nothing of any replica, and nothing in its favour
            self._failures.drop_unsettled()
            return
        self._failures.settle()
        self._pool.scheduler.replicas.record_success(replica, self._target.voter)

    async def _open(self, call: EngineCall, replica: Replica) -> EngineResponse:
        with self._timing.step(ENGINE):
            response = await self._context.engines.send(call, replica)
        if response.connect_s:
            self._timing.split(ENGINE, CONNECT, response.connect_s)
        return response

    async def _plan_rest(self, replica: Replica) -> ResumptionPlan:
        if (stream_log := self._writer.stream_log) is None:
            raise StreamLost("The engine broke off before its answer was complete.")
        return await plan_rest(self._target, stream_log, self._context.engines, replica)

    def _annotate(self, decision: Decision) -> None:
        request = self._request
        headers = [(header_names.MODEL, self._target.header)]
        if request.shows_routing:
            headers.append((header_names.REPLICA, decision.replica.id.encode()))
            headers.append((header_names.CACHED_TOKENS, b"%d" % decision.cached_tokens))
        if self._progress.retries:
            headers.append((header_names.RETRIES, b"%d" % self._progress.retries))
        if request.is_explained and request.shows_routing:
            headers.append((header_names.DECISION, decision.encode()))
        self._writer.client_response.annotate(headers)
