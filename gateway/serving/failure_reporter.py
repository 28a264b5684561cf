"""Reporter of one request's failures: counts them against replicas, and as faults.

A failure that the request itself may have caused is not counted at once. It counts against its
replica when another replica has answered the request. If the request fails in the same way there,
is refused there, or is tried nowhere else, it counts against none: its client could cause it at
will. Failures to connect and rejected keys are the replica's own, because the request has no part
in them; a death or halt, seen by many requests, is no series of failures.
"""

import asyncio
from collections.abc import Collection

from gateway.errors.gateway_error import GatewayError
from gateway.errors.limits import Overloaded
from gateway.errors.upstream import Reason, UpstreamFailed
from gateway.faults import NO_REPLICA, Action, Fault, Faults
from gateway.routing.decision import Decision
from gateway.routing.fleet import Replica
from gateway.routing.scheduler import Scheduler
from gateway.routing.target import Target
from gateway.serving.retry_policy import REPORTED, Failure

DEATH_NOTICE_S = 0.01
"""A replica that dies breaks all its connections off at once, that of its telemetry as well."""
DEATH_S = 5.0
"""How soon after its failure a replica has died of a request, if it has."""
INNOCENT = frozenset({Reason.DRAINING, Reason.CLOSING, Reason.NO_SOCKET})
"""Reasons that say nothing against the replica."""


class FailureReporter:
    """Failures of one request at one model."""

    def __init__(self, target: Target, scheduler: Scheduler, faults: Faults) -> None:
        self._target = target
        self._scheduler = scheduler
        self._faults = faults
        self._pending: tuple[Replica | None, UpstreamFailed, Action] | None = None
        """Failure of the last attempt, until the next one has been made."""
        self._unsettled: list[tuple[Replica, UpstreamFailed]] = []
        """Failures that are the replica's fault if another one answers, and else the request's."""
        self._failed_at: dict[str, float] = {}
        """Until when the loss of each replica counts where the request has failed, by its id."""
        self._was_usable = True
        """Whether the replica of the latest attempt was there and not draining when it was sent."""
        self._is_blamed = False

    @property
    def is_unsettled(self) -> bool:
        """Whether an answer would show that a replica is at fault."""
        return bool(self._unsettled)

    @property
    def failed_at(self) -> Collection[str]:
        """Ids of the replicas where the request has failed."""
        return self._failed_at.keys()

    @property
    def has_lost_replica(self) -> bool:
        """Whether a replica where the request failed accepts no more, or is gone: it has died.

        One that was draining before, or drains long after, goes for another reason.
        """
        now_s = asyncio.get_running_loop().time()
        return any(
            now_s <= until_s and not self._is_usable(replica)
            for replica, until_s in self._failed_at.items()
        )

    def record_attempt(self, replica: Replica) -> None:
        """Record that the request is about to be sent to a replica."""
        self._was_usable = self._is_usable(replica.id)

    def _is_usable(self, replica: str) -> bool:
        state = self._scheduler.replicas.get(replica)
        return state is not None and not state.health.is_draining

    async def assess(
        self, decision: Decision, error: UpstreamFailed, *, has_answered: bool
    ) -> Failure:
        """What a failure says of its replica and of the request.

        `has_answered`: the replica had sent some of the answer before.
        """
        replica, reason, replicas = decision.replica, error.reason, self._scheduler.replicas
        if reason in INNOCENT:
            return Failure(reason)
        until_s = asyncio.get_running_loop().time() + DEATH_S if self._was_usable else 0.0
        self._failed_at[replica.id] = until_s
        if reason is Reason.STUCK:
            replicas.back_off(replica)
            has_silenced = not has_answered and replicas.has_silenced(decision)
            return Failure(reason, has_silenced=has_silenced)
        if reason is Reason.DIED:
            replicas.back_off(replica)
            return Failure(reason, has_died=True)
        has_died = reason not in REPORTED and await self._has_died(replica, reason)
        if reason in {Reason.UNREACHABLE, Reason.KEY}:
            replicas.back_off(replica)
            if not has_died:
                self._count_failure(replica, error)
            return Failure(reason)
        if has_died:
            return Failure(reason, has_died=reason is Reason.BROKE_OFF)
        is_expected = replicas.is_suspect(replica)
        self._unsettled.append((replica, error))
        return Failure(reason, is_expected=is_expected)

    async def _has_died(self, replica: Replica, reason: Reason) -> bool:
        """Whether the replica is not there any more; others are preferred to it then."""
        replicas = self._scheduler.replicas
        if reason is Reason.BROKE_OFF and replicas.has_telemetry(replica.id):
            await asyncio.sleep(DEATH_NOTICE_S)
        if replicas.has_telemetry(replica.id):
            return False
        replicas.back_off(replica)
        return reason in {Reason.BROKE_OFF, Reason.UNREACHABLE}

    def settle(self) -> None:
        """Count the failures against their replicas: another one has answered the request."""
        unsettled, self._unsettled = self._unsettled, []
        for replica, error in unsettled:
            self._count_failure(replica, error)

    def drop_unsettled(self) -> None:
        """Forget the failures: the request has turned out to be wrong, or to fail everywhere."""
        self._unsettled = []

    def blame_request(self) -> None:
        """Record that the request fails wherever it is sent, if there was more than one place."""
        self.drop_unsettled()
        self._is_blamed = len(self._failed_at) > 1

    def expect_recovery(
        self, replica: Replica | None, error: UpstreamFailed, action: Action
    ) -> None:
        """Keep a failure, from which another attempt is to recover by `action`."""
        self.report_recovery()
        self._pending = replica, error, action

    def report_recovery(self) -> None:
        """Report a failure from which another attempt has recovered: the client sees none of it."""
        if self._pending is not None:
            replica, error, action = self._pending
            self._pending = None
            self._record(error.reason, action, replica, str(error))

    def report_fallback(self, replica: Replica | None, error: GatewayError) -> None:
        """Report an error that makes another model answer."""
        self._pending = None
        reason = error.reason if isinstance(error, UpstreamFailed) else error.code
        self._record(reason, Action.FELL_BACK, replica, str(error))

    def report_failure(
        self, replica: Replica | None, error: GatewayError, *, has_begun: bool
    ) -> None:
        """Report an error that the client gets, within its stream if that has begun."""
        action = Action.TRUNCATED if has_begun else Action.FAILED
        if self._is_blamed and isinstance(error, UpstreamFailed):
            self._report_blamed(replica, error)
            return
        if self._pending is not None and not isinstance(error, UpstreamFailed):
            replica, cause, _ = self._pending
            self._pending = None
            self._record(cause.reason, action, replica, str(error))
            return
        self.report_recovery()
        if isinstance(error, Overloaded):
            self._record(error.code, Action.SHED, None, str(error))
        elif error.status >= 500:
            reason = error.reason if isinstance(error, UpstreamFailed) else error.code
            self._record(reason, action, replica, str(error))

    def _report_blamed(self, replica: Replica | None, error: UpstreamFailed) -> None:
        """Report a request that fails everywhere, in one line for all of its attempts."""
        if self._pending is not None:
            _, cause, retried = self._pending
            self._pending = None
            self._faults.count(Fault(self._target.model.name, cause.reason, retried))
        why = f"{error} It failed on {len(self._failed_at)} replicas, so the request is at fault."
        self._record(error.reason, Action.BLAMED, replica, why)

    def _count_failure(self, replica: Replica, error: UpstreamFailed) -> None:
        if self._scheduler.replicas.record_failure(replica, self._target.voter):
            self._record(error.reason, Action.EJECTED, replica, "it failed again and again")

    def _record(self, reason: str, action: Action, replica: Replica | None, why: str) -> None:
        self._faults.record(
            Fault(self._target.model.name, reason, action),
            request_id=self._target.request.log_name,
            replica=replica.id if replica else NO_REPLICA,
            message=why,
        )
