"""Fairness among projects, whatever router their requests come to.

Method: engines repeat to all routers which requests of which projects they run, what these took,
and which projects' requests routers hold. So each router keeps the same virtual counters
(`VirtualCounters`), up to a frame. Where room comes up at a replica, the projects that wait for it
and are no further ahead than a window take part; of their requests the one due first is started, so
that within the window caches decide. A project further ahead yields to those that other routers
hold for the replica, but not for long: a project whose requests do not take the room in `YIELD_S`
is not held really, and does not count there until more of its requests have started. So no engine
idles while a request waits for it.

Window: `WINDOW_FRAMES` times the work that all replicas start within a frame, by learned speeds,
shared out by the weights of the projects that wait. A project cannot see what others start within
the same frame: with less, it would take turns with them instead of sharing the slots.

Batch requests have counters of their own. They yield to all interactive requests.

Cost: O(1) a request while nobody waits, and O(projects that wait for the replica) to choose one.
Requests of one project that start in a row are charged together, once somebody asks for the
counters, and at the latest when gauges are published; those that end, with the frame that tells so.
Without authentication nothing is counted.
"""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass

from gateway.admission.held_projects import HeldProjects
from gateway.admission.queue_item import QueueItem
from gateway.admission.virtual_counters import HALF_LIFE_S, VirtualCounters
from gateway.decaying_mean import DecayingMean
from gateway.routing.cost_model import CostModel
from gateway.routing.held_elsewhere import NO_PROJECTS
from gateway.routing.replica_set import ReplicaSet
from gateway.routing.reservations import Settled
from gateway.telemetry.usage import Reservation

FRAME_S = 0.05
"""Time between two frames of an engine's telemetry."""
WINDOW_FRAMES = 8.0
"""Frames whose work the window is worth. What a router starts is known to others, and what they
start in return to it, after two or three; the rest is room for caches to decide."""
YIELD_S = 4 * FRAME_S
"""How long room may stay unused while a project yields."""
MEAN_MEMORY = 0.98
"""Weight of earlier costs at those of each new frame."""
MAX_CHARGED = 64
"""Most requests that are charged together."""


@dataclass(slots=True)
class ProjectUse:
    """What is known of a project's use of a model, by all routers together."""

    weight: float = 1.0
    """Weight of its latest request."""
    starts: int = 0
    """Interactive requests that have started."""
    served_s: float = 0.0
    """Seconds of the engines' time that its ended requests took."""


UNKNOWN = ProjectUse()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaTurns:
    """Turns of the projects in one queue of a replica."""

    fairness: "ProjectFairness"
    replica: str
    is_batch: bool

    def next_project(self, heads: Mapping[str, QueueItem]) -> str:
        """Project whose turn it is; `heads`: the first request of each that waits."""
        return self.fairness.next_project(self.replica, heads, is_batch=self.is_batch)

    def weight(self, project: str) -> float:
        """Weight of a project."""
        return self.fairness.weight(project)


class ProjectFairness:
    """Fairness among the projects of one model, as one router sees it; `now` is in seconds."""

    def __init__(
        self, replicas: ReplicaSet, cost_model: CostModel, now: Callable[[], float]
    ) -> None:
        self._replicas = replicas
        self._elsewhere = replicas.held_elsewhere
        self.held = HeldProjects()
        """Interactive requests that wait in this router."""
        self._cost_model = cost_model
        self._now = now
        self._interactive = VirtualCounters(now, self._elsewhere.all_projects)
        self._batch = VirtualCounters(now)
        self._uses: dict[str, ProjectUse] = {}
        self._started: list[Reservation] = []
        """Requests of one project and priority that have started and are not charged yet."""
        self._reserved_s: dict[int, float] = {}
        """When the requests were charged that have not ended."""
        self._request_s = DecayingMean(MEAN_MEMORY)
        self._yielding: dict[str, float] = {}
        """Replicas with room at which requests yield, and since when."""
        self._ignored: dict[str, dict[str, int]] = {}
        """By replica, projects that are not held there really, and their starts until then."""
        replicas.reservations.add_listener(self)
        self._elsewhere.before_join = self._lift

    @property
    def uses(self) -> Mapping[str, ProjectUse]:
        """Use by project."""
        self._charge_started()
        return self._uses

    @property
    def waiting(self) -> Mapping[str, int]:
        """Interactive requests that wait in this router, by project."""
        return self._interactive.waiting_here

    def record_reserved(self, reservation: Reservation) -> None:
        """Charge a request that starts, whichever router sent it."""
        started = self._started
        if started:
            first = started[0]
            if (
                first.project != reservation.project
                or first.is_batch != reservation.is_batch
                or len(started) >= MAX_CHARGED
            ):
                self._charge_started()
        self._started.append(reservation)

    def record_settled(self, settled: Sequence[Settled]) -> None:
        """Correct the charges of requests that have ended to what they took, if it is known.

        Of what was charged some time ago, a part is left: half of it after `HALF_LIFE_S`.
        """
        self._charge_started()
        now_s, cost_s, uses = self._now(), self._cost_model.cost_s, self._uses
        reserved_s = self._reserved_s
        more_s: dict[tuple[str, bool], float] = {}
        total_s, served = 0.0, 0
        for reservation, usage in settled:
            project, weight, real_s = reservation.project, reservation.weight, 0.0
            if usage is not None and not usage.origin.is_copy:
                new_tokens = usage.prompt_tokens - usage.cached_tokens
                real_s = cost_s(max(0, new_tokens), usage.completion_tokens)
                total_s += real_s
                served += 1
                (uses.get(project) or self._use(project, weight)).served_s += real_s
            age_s = now_s - reserved_s.pop(reservation.id, now_s)
            left_s = reservation.cost_s * 0.5 ** (age_s / HALF_LIFE_S)
            whose = project, reservation.is_batch
            more_s[whose] = more_s.get(whose, 0.0) + (real_s - left_s) / weight
        if served:
            self._request_s.observe(total_s, served)
        for (project, is_batch), virtual_s in more_s.items():
            self._counters(is_batch=is_batch).correct(project, virtual_s)

    def record_queued(self, item: QueueItem, replica: str) -> None:
        """Count a request that waits in this router for a replica from now on."""
        self._charge_started()
        self._use(item.project, item.weight)
        self._counters(is_batch=item.is_batch).record_queued(item.project)
        if not item.is_batch:
            self.held.add(replica, item.project)

    def record_moved(self, item: QueueItem, replica: str, other: str) -> None:
        """Count a request that waits for another replica from now on."""
        if item.project and not item.is_batch:
            self.held.add(other, item.project)
            self.held.remove(replica, item.project)

    def record_unqueued(self, item: QueueItem, replica: str) -> None:
        """Stop counting a request that no longer waits."""
        self._charge_started()
        if not item.is_batch:
            self.held.remove(replica, item.project)
        self._counters(is_batch=item.is_batch).record_unqueued(item.project)

    def record_released(self, item: QueueItem) -> None:
        """Charge a request that is about to be sent."""
        self._charge_started()
        counters = self._counters(is_batch=item.is_batch)
        counters.charge(item.project, item.cost_s / item.weight)

    def record_discarded(self, item: QueueItem) -> None:
        """Take that charge back: the request is sent now, which charges it, or never."""
        counters = self._counters(is_batch=item.is_batch)
        counters.correct(item.project, -item.cost_s / item.weight)

    def weight(self, project: str) -> float:
        """Weight of a project."""
        self._charge_started()
        return self._uses.get(project, UNKNOWN).weight

    def turns(self, replica: str, *, is_batch: bool) -> "ReplicaTurns":
        """Return the turns of the projects in one queue of a replica."""
        return ReplicaTurns(fairness=self, replica=replica, is_batch=is_batch)

    def next_project(self, replica: str, heads: Mapping[str, QueueItem], *, is_batch: bool) -> str:
        """Project whose turn it is at a replica; `heads`: the first request of each that waits.

        It may have to yield nevertheless, if all are too far ahead of others.
        """
        self._charge_started()
        counters = self._counters(is_batch=is_batch)
        others: Set[str] = frozenset() if is_batch else self._others(replica)
        everybody, window_s = heads.keys() | others, self.window_s
        leads = counters.leads_s(heads, everybody)
        near = [project for project, lead_s in leads.items() if lead_s <= window_s]
        if near:
            return min(near, key=lambda project: heads[project].rank)
        return min(heads, key=leads.__getitem__)

    def is_behind(self, project: str) -> bool:
        """Whether a project is behind all that wait, and does not wait in this router itself."""
        counters = self._interactive
        if project in counters.waiting_here:
            return False
        self._charge_started()
        waiting = counters.waiting
        return not waiting or counters.lead_s(project, waiting) <= 0

    def is_over_share(self, project: str) -> bool:
        """Whether a project has been served its share or more of what all were served lately."""
        counters, started = self._interactive, self._started
        if started and (started[0].project != project or not counters.is_alone(project)):
            self._charge_started()
        return counters.is_over_mean(project)

    def yields(self, project: str, replica: str, *, is_batch: bool) -> bool:
        """Whether a project's request leaves a replica's room to what other routers hold."""
        others: Set[str] = NO_PROJECTS
        if self._elsewhere.all_projects:
            self._charge_started()
            others = self._others(replica)
        if not others or (not is_batch and self._is_near(project, others)):
            if self._yielding:
                self._yielding.pop(replica, None)
            return False
        now_s = self._now()
        since_s = self._yielding.setdefault(replica, now_s)
        if now_s < since_s + YIELD_S:
            return True
        del self._yielding[replica]
        self._ignored = {r: each for r, each in self._ignored.items() if self._replicas.get(r)}
        ignored = self._ignored.setdefault(replica, {})
        ignored.update({other: self._uses.get(other, UNKNOWN).starts for other in others})
        return False

    def record_full(self, replica: str) -> None:
        """Record that a replica has no room: whoever yielded has made use of it."""
        self._yielding.pop(replica, None)

    def retry_s(self, replica: str) -> float | None:
        """Seconds until requests may no longer yield at a replica; None if none does."""
        since_s = self._yielding.get(replica)
        return None if since_s is None else max(0.0, since_s + YIELD_S - self._now())

    @property
    def window_s(self) -> float:
        """Virtual seconds by which a project may be ahead of others and still be started."""
        weights = sum([self.weight(project) for project in self._interactive.waiting])
        return WINDOW_FRAMES * self._frame_work_s / max(weights, 1e-9)

    def _is_near(self, project: str, others: Collection[str]) -> bool:
        return self._interactive.lead_s(project, others) <= self.window_s

    def _others(self, replica: str) -> Set[str]:
        """Projects that other routers hold for a replica."""
        held = self._elsewhere.projects(replica)
        ignored = self._ignored.get(replica)
        if not (held and ignored):
            return held
        self._ignored[replica] = ignored = {
            project: starts
            for project, starts in ignored.items()
            if project in held and self._uses.get(project, UNKNOWN).starts == starts
        }
        return held - ignored.keys()

    def _counters(self, *, is_batch: bool) -> VirtualCounters:
        return self._batch if is_batch else self._interactive

    @property
    def _frame_work_s(self) -> float:
        """Work that all replicas do within a frame, or that of one request, if it is more."""
        return max(len(self._replicas.all()) * FRAME_S, self._mean_request_s)

    @property
    def _mean_request_s(self) -> float:
        mean_s = self._request_s.value
        return mean_s or self._cost_model.cost_s(0, self._cost_model.estimates.output_tokens)

    def _lift(self, project: str) -> None:
        """Prepare for a project that is held elsewhere from now on."""
        self._charge_started()
        self._interactive.lift(project)

    def _charge_started(self) -> None:
        """Charge the requests that have started since it was done last."""
        if not (started := self._started):
            return
        self._started = []
        last = started[-1]
        use = self._use(last.project, last.weight)
        if not last.is_batch:
            use.starts += len(started)
        virtual_s = sum([each.cost_s / each.weight for each in started])
        counters = self._counters(is_batch=last.is_batch)
        charged_s = counters.charge(last.project, virtual_s, last.cost_s / last.weight)
        self._reserved_s.update(dict.fromkeys([each.id for each in started], charged_s))

    def _use(self, project: str, weight: float) -> ProjectUse:
        use = self._uses.get(project)
        if use is None:
            use = self._uses[project] = ProjectUse()
        use.weight = weight
        return use
