"""Reporter of one request's failures: counts them against replicas, and as faults."""

import asyncio

from gateway.errors import GatewayError, Overloaded, Reason, UpstreamFailed
from gateway.faults import Action, Fault, Faults
from gateway.routing.fleet import Replica
from gateway.routing.scheduler import Scheduler
from gateway.routing.target import Target

DEATH_NOTICE_S = 0.01
"""A replica that dies breaks all its connections off at once, that of its telemetry as well."""
INNOCENT = frozenset({Reason.DRAINING, Reason.CLOSING})
"""Reasons that say nothing against the replica."""
REPORTED_BY_ENGINE = frozenset({Reason.ANSWERED_5XX, Reason.ENGINE_ERROR})
"""Reasons where the replica could be reached."""


class FailureReporter:
    """Failures of one request at one model."""

    def __init__(self, target: Target, scheduler: Scheduler, faults: Faults) -> None:
        self._target = target
        self._scheduler = scheduler
        self._faults = faults
        self._pending: tuple[Replica | None, UpstreamFailed, Action] | None = None
        """Failure of the last attempt, until the next one has been made."""

    async def blame(self, replica: Replica, error: UpstreamFailed) -> bool:
        """Count a failure against its replica; return whether the replica has died."""
        if error.reason in INNOCENT:
            return False
        scheduler = self._scheduler
        if error.reason in REPORTED_BY_ENGINE:
            self._count_failure(replica, error)
            return False
        scheduler.replicas.back_off(replica)
        if error.reason == Reason.BROKE_OFF:
            await asyncio.sleep(DEATH_NOTICE_S)
        is_cut_off = error.reason in {Reason.BROKE_OFF, Reason.UNREACHABLE}
        has_died = is_cut_off and not scheduler.replicas.has_telemetry(replica.id)
        # One death or halt, seen by many requests, is no series of failures.
        if not has_died and error.reason != Reason.STUCK:
            self._count_failure(replica, error)
        return has_died and error.reason == Reason.BROKE_OFF

    def expect_recovery(
        self, replica: Replica | None, error: UpstreamFailed, action: Action
    ) -> None:
        """Keep a failure, from which another attempt is to recover by `action`."""
        self.recovered()
        self._pending = replica, error, action

    def recovered(self) -> None:
        """Report a failure from which another attempt has recovered: the client sees none of it."""
        if self._pending is not None:
            replica, error, action = self._pending
            self._pending = None
            self._record(error.reason, action, replica, str(error))

    def fell_back(self, replica: Replica | None, error: GatewayError) -> None:
        """Report an error because of which another model answers."""
        self._pending = None
        reason = error.reason if isinstance(error, UpstreamFailed) else error.code
        self._record(reason, Action.FELL_BACK, replica, str(error))

    def failed(self, replica: Replica | None, error: GatewayError, *, has_begun: bool) -> None:
        """Report an error that the client gets, within its stream if that has begun."""
        action = Action.TRUNCATED if has_begun else Action.FAILED
        if self._pending is not None and not isinstance(error, UpstreamFailed):
            replica, cause, _ = self._pending
            self._pending = None
            self._record(cause.reason, action, replica, str(error))
            return
        self.recovered()
        if isinstance(error, Overloaded):
            self._record(error.code, Action.SHED, None, str(error))
        elif error.status >= 500:
            reason = error.reason if isinstance(error, UpstreamFailed) else error.code
            self._record(reason, action, replica, str(error))

    def _count_failure(self, replica: Replica, error: UpstreamFailed) -> None:
        if self._scheduler.replicas.record_failure(replica):
            self._record(error.reason, Action.EJECTED, replica, "it failed again and again")

    def _record(self, reason: str, action: Action, replica: Replica | None, why: str) -> None:
        self._faults.record(
            Fault(self._target.model.name, reason, action),
            request_id=self._target.request.request_id.decode(),
            replica=replica.id if replica else "-",
            message=why,
        )
