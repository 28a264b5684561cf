"""What a request's failures mean for its replicas, and what is noted of them."""

import asyncio

from gateway.errors import (
    GatewayError,
    Overloaded,
    Reason,
    UpstreamFailed,
)
from gateway.faults import Action, Fault, Faults
from gateway.routing.fleet import Replica
from gateway.routing.scheduler import Scheduler
from gateway.routing.target import Target

LAST_WORDS_S = 0.01
"""A replica that dies breaks all its connections off at once, that of its telemetry as well."""
INNOCENT = frozenset({Reason.DRAINING, Reason.CLOSING})
"""Reasons that say nothing against the replica."""
ITS_OWN_WORDS = frozenset({Reason.ANSWERED_5XX, Reason.ENGINE_ERROR})
"""Reasons where the replica could be reached."""


class FailureReporter:
    """Those of one request."""

    def __init__(self, target: Target, scheduler: Scheduler, faults: Faults) -> None:
        self._target = target
        self._scheduler = scheduler
        self._faults = faults
        self._suffered: tuple[Replica | None, UpstreamFailed, Action] | None = None

    async def blame(self, replica: Replica, error: UpstreamFailed) -> bool:
        """A replica has failed the request: others are preferred to it. Whether it has died."""
        if error.reason in INNOCENT:
            return False
        scheduler = self._scheduler
        if error.reason in ITS_OWN_WORDS:
            self._count_failure(replica, error)
            return False
        scheduler.replicas.back_off(replica)
        if error.reason == Reason.BROKE_OFF:
            await asyncio.sleep(LAST_WORDS_S)
        is_cut_off = error.reason in {Reason.BROKE_OFF, Reason.UNREACHABLE}
        has_died = is_cut_off and not scheduler.replicas.has_telemetry(replica.id)
        # One death or halt, seen by many requests, is no row of failures.
        if not has_died and error.reason != Reason.STUCK:
            self._count_failure(replica, error)
        return has_died and error.reason == Reason.BROKE_OFF

    def suffered(self, replica: Replica | None, error: UpstreamFailed, action: Action) -> None:
        """There is to be another attempt."""
        self.mended()
        self._suffered = replica, error, action

    def mended(self) -> None:
        """The other attempt was made: the client notices nothing of what was suffered."""
        if self._suffered is not None:
            replica, error, action = self._suffered
            self._suffered = None
            self._note(error.reason, action, replica, str(error))

    def passed_on(self, replica: Replica | None, error: GatewayError) -> None:
        """Another model takes the request over."""
        self._suffered = None
        reason = error.reason if isinstance(error, UpstreamFailed) else error.code
        self._note(reason, Action.FELL_BACK, replica, str(error))

    def told(self, replica: Replica | None, error: GatewayError, *, is_cut: bool) -> None:
        """The client is told, in the middle of its stream if that `is_cut`."""
        if self._suffered is not None and not isinstance(error, UpstreamFailed):
            replica, cause, _ = self._suffered
            self._suffered = None
            self._note(cause.reason, Action.CUT if is_cut else Action.FAILED, replica, str(error))
            return
        self.mended()
        if isinstance(error, Overloaded):
            self._note(error.code, Action.SHED, None, str(error))
        elif error.status >= 500:
            reason = error.reason if isinstance(error, UpstreamFailed) else error.code
            self._note(reason, Action.CUT if is_cut else Action.FAILED, replica, str(error))

    def _count_failure(self, replica: Replica, error: UpstreamFailed) -> None:
        if self._scheduler.replicas.record_failure(replica):
            self._note(error.reason, Action.EJECTED, replica, "it failed again and again")

    def _note(self, reason: str, action: Action, replica: Replica | None, why: str) -> None:
        self._faults.record(
            Fault(self._target.model.name, reason, action),
            request_id=self._target.request.request_id.decode(),
            replica=replica.id if replica else "-",
            message=why,
        )
