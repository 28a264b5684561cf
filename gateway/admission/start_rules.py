"""When a request may start: the room at its replica, and what others are owed of it.

Tenants over their fair share of recent usage leave a little of every replica free. Among projects,
shares are those of all routers together (`ProjectFairness`), and a request yields its room to what
other routers hold of projects that are behind.
"""

from gateway.admission.bypass_queue import StartVerdict
from gateway.admission.project_fairness import ProjectFairness
from gateway.admission.queued_request import AdmissionRequest
from gateway.admission.recent_usage import RecentUsage
from gateway.routing.decision import Decision
from gateway.routing.scheduler import Scheduler


class StartRules:
    """Rules by which requests to one model start."""

    def __init__(self, scheduler: Scheduler, fairness: ProjectFairness, usage: RecentUsage) -> None:
        self._scheduler = scheduler
        self._fairness = fairness
        self._usage = usage

    def is_owed(self, request: AdmissionRequest) -> bool:
        """Whether a request's project or tenant has had less than others whose requests wait."""
        if request.project:
            return self._fairness.is_behind(request.project)
        return not self._usage.is_over_fair_share(request.tenant)

    def check_room(self, request: AdmissionRequest, decision: Decision) -> StartVerdict:
        """Whether the replica has room, and that is not for what other routers hold."""
        has_room = self._scheduler.has_room(decision, is_over_share=self._leaves_spare(request))
        if not request.project:
            return StartVerdict.START if has_room else StartVerdict.WAIT
        replica = decision.replica.id
        if has_room:
            yields = self._fairness.yields(request.project, replica, is_batch=request.is_batch)
            return StartVerdict.YIELD if yields else StartVerdict.START
        if not self._scheduler.has_slot(decision):
            self._fairness.record_full(replica)
        return StartVerdict.WAIT

    def has_slot(self, request: AdmissionRequest, decision: Decision) -> bool:
        """Whether the replica has a slot, if perhaps not enough of the KV cache."""
        return self._scheduler.has_slot(decision, is_over_share=self._leaves_spare(request))

    def record_start(self, request: AdmissionRequest, decision: Decision) -> None:
        """Count a request that starts as its tenant's usage."""
        if not request.is_batch:
            self._usage.record(request.tenant, request.tokens(decision))

    def _leaves_spare(self, request: AdmissionRequest) -> bool:
        """Whether the request leaves some room for tenants that are below their share."""
        if request.is_batch:
            return False
        if not request.project:
            return self._usage.is_over_fair_share(request.tenant)
        return self._fairness.is_over_share(request.project) or self._usage.is_key_over_fair_share(
            request.tenant
        )
