"""Virtual counters: what a model's engines have done for each project, divided by its weight.

Method: a start adds the request's expected cost, divided by the weight, to the project's counter;
its end corrects that to the real cost. Of the projects that wait, the one with the least counter is
behind the others. A project that begins to wait, or starts a request while it does not wait, is
lifted to the floor: the least counter of those that wait, or where the latest request started that
none waited beside. So nobody gains by having been idle.

Routers learn of each other's requests a little later than of their own. For their counters to be
the same nevertheless, projects are lifted to the floor of `LAG_S` ago. What difference remains
fades, with all credit and debt: counters decay by half in `HALF_LIFE_S`. New charges are scaled up
rather than old ones down, so that nothing has to be computed to compare.

O(1) a request, and O(projects that wait) in every `SAMPLE_S`. Bounded: of too many counters the
least are dropped, which would be lifted anyway; and so is a counter below the floor of a project
that has started nothing for `KEPT_S`.

Sources: Sheng et al.: Fairness in serving large language models (2024), for counters and lift;
Goyal, Vin, Cheng: Start-time fair queuing (1996), for the lift while nobody waits.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Set

HALF_LIFE_S = 60.0
LAG_S = 0.15
"""A little more than it takes until all routers know what one has started."""
SAMPLE_S = 0.03
"""How often the floor is noted."""
KEPT_S = 30.0
"""How long a project counts in the mean that has nothing more started."""
FORGET_EVERY_S = 5.0
MAX_PROJECTS = 4096
"""Counters that are kept."""
MAX_DOUBLINGS = 100.0
"""Doublings of the scale of new charges after which all is scaled down; a float has room for ten
times as many."""


class VirtualCounters:
    """Virtual counters of projects for requests of one priority, in virtual seconds.

    `elsewhere`: the projects whose requests wait in other routers, now and at any later time.
    `now` is in seconds.
    """

    def __init__(self, now: Callable[[], float], elsewhere: Set[str] = frozenset()) -> None:
        self._now = now
        self._since_s = now()
        """When the scale was 1."""
        self._elsewhere = elsewhere
        self._here: Counter[str] = Counter()
        self._counters: dict[str, float] = {}
        """Scaled counters."""
        self._used_s: dict[str, float] = {}
        """When each project with a counter was lifted or charged last."""
        self._recent: dict[str, None] = {}
        """Projects that count in the mean, the one that was lifted or charged last at the end."""
        self._sum = 0.0
        """Sum of their counters."""
        self._forgot_s = self._since_s
        self._start = 0.0
        """Scaled counter at which the latest request has started that nobody waited beside."""
        self._floors: deque[tuple[float, float]] = deque()
        """Scaled floors, each with its time; the first one is that of `LAG_S` ago."""
        self._noted_s = -math.inf
        """When the floor was noted last."""
        self._floor, self._scale = 0.0, 1.0
        """Scaled floor of `LAG_S` before that, and the scale of what is charged, as of then."""

    def __len__(self) -> int:
        """How many projects have a counter."""
        return len(self._counters)

    @property
    def waiting(self) -> Set[str]:
        """Projects whose requests wait in any router."""
        return self._here.keys() | self._elsewhere if self._elsewhere else self._here.keys()

    @property
    def waiting_here(self) -> Counter[str]:
        """Requests that wait in this router, by project; read only."""
        return self._here

    def lead_s(self, project: str, others: Iterable[str]) -> float:
        """Return how far a project is ahead of the last of others, at least one, in seconds.

        The project counts as if it began to wait now, if it does not wait.
        """
        return self.leads_s((project,), others)[project]

    def leads_s(self, projects: Iterable[str], others: Iterable[str]) -> dict[str, float]:
        """Return how far each project is ahead of the last of the same others; see `lead_s`."""
        self._refresh()
        least = min([self._counters.get(other, 0.0) for other in others])
        return {project: (self._lifted(project) - least) / self._scale for project in projects}

    def is_alone(self, project: str) -> bool:
        """Whether no other project counts in the mean."""
        recent = self._recent
        return not recent or (len(recent) == 1 and project in recent)

    def is_over_mean(self, project: str) -> bool:
        """Whether a project's counter is no less than the mean, and others count in that, too.

        Those do that wait, or have waited or started something within `KEPT_S`.
        """
        recent = self._recent
        if len(recent) > 1:
            self._forget_recent()
        elif not recent or project in recent:
            return False
        counter, is_recent = self._counters.get(project, 0.0), project in recent
        others = len(self._recent) - is_recent
        total = self._sum if is_recent else self._sum + counter
        return others > 0 and counter * (others + 1) >= total

    def record_queued(self, project: str) -> None:
        """Count a request that waits in this router from now on."""
        if project not in self._here:
            self.lift(project)
        self._here[project] += 1

    def record_unqueued(self, project: str) -> None:
        """Stop counting a request that no longer waits in this router."""
        self._here[project] -= 1
        if not self._here[project]:
            del self._here[project]

    def lift(self, project: str) -> None:
        """Lift a project that begins to wait, unless it waits already."""
        if project not in self._counters and len(self._counters) >= MAX_PROJECTS:
            self._drop_some()
        self._set(project, self._lifted(project))
        self._use(project, self._now())

    def charge(self, project: str, virtual_s: float, last_s: float | None = None) -> float:
        """Charge a project for a request that starts; return when that was.

        `last_s`: what the last one comes to, if there are several.
        """
        now_s = self._now()
        if now_s >= self._noted_s + SAMPLE_S:
            self._refresh()
        counter, here, elsewhere = self._counters.get(project), self._here, self._elsewhere
        if counter is None:
            self.lift(project)
            counter = self._counters[project]
        if not (here or elsewhere):
            counter = max(counter, self._floor)
            earlier_s = 0.0 if last_s is None else virtual_s - last_s
            self._start = counter + earlier_s * self._scale
        elif project not in here and project not in elsewhere:
            counter = max(counter, self._floor)
        if self._used_s[project] != self._noted_s:
            self._use(project, self._noted_s)
        self._set(project, counter + virtual_s * self._scale)
        return now_s

    def correct(self, project: str, virtual_s: float) -> None:
        """Charge a project so much more, or less, than it was charged."""
        counter = self._counters.get(project)
        if counter is not None:
            self._refresh()
            self._set(project, counter + virtual_s * self._scale)

    def _set(self, project: str, counter: float) -> None:
        if project in self._recent:
            self._sum += counter - self._counters[project]
        self._counters[project] = counter

    def _use(self, project: str, now_s: float) -> None:
        """Have a project count in the mean from now on."""
        if project in self._recent:
            del self._recent[project]
        else:
            self._sum += self._counters[project]
        self._recent[project] = None
        self._used_s[project] = now_s

    def _forget_recent(self) -> None:
        """Have those count no longer in the mean, of several, that have gone."""
        now_s = self._now()
        while self._used_s[first := next(iter(self._recent))] < now_s - KEPT_S:
            if first in self._here or first in self._elsewhere:
                self._use(first, now_s)
            else:
                self._leave_mean(first)
                if not self._recent:
                    return

    def _leave_mean(self, project: str) -> None:
        del self._recent[project]
        self._sum = self._sum - self._counters[project] if self._recent else 0.0

    def _lifted(self, project: str) -> float:
        counter = self._counters.get(project, 0.0)
        if project in self._here or project in self._elsewhere:
            return counter
        self._refresh()
        return max(counter, self._floor)

    def _refresh(self) -> None:
        """Note the floor and the scale, unless that was done a moment ago."""
        now_s = self._now()
        if now_s < self._noted_s + SAMPLE_S:
            return
        self._noted_s = now_s
        waiting = self.waiting
        counters = [self._counters.get(project, 0.0) for project in waiting]
        self._floors.append((now_s, min(counters) if waiting else self._start))
        self._floor = self._floor_before(now_s - LAG_S)
        doublings = (now_s - self._since_s) / HALF_LIFE_S
        self._scale = float(2.0**doublings)
        if doublings > MAX_DOUBLINGS:
            self._rescale(now_s)
        if now_s > self._forgot_s + FORGET_EVERY_S:
            self._forgot_s = now_s
            self._forget_idle(now_s - KEPT_S)

    def _floor_before(self, before_s: float) -> float:
        """The latest floor up to a time; forgets those before it."""
        floors = self._floors
        while len(floors) > 1 and floors[1][0] <= before_s:
            floors.popleft()
        return floors[0][1] if floors and floors[0][0] <= before_s else 0.0

    def _rescale(self, now_s: float) -> None:
        """Have a scale of 1 again."""
        factor = 1 / self._scale
        self._since_s, self._scale = now_s, 1.0
        self._floor *= factor
        self._counters = {name: value * factor for name, value in self._counters.items()}
        self._start *= factor
        self._sum *= factor
        self._floors = deque((time_s, floor * factor) for time_s, floor in self._floors)

    def _drop_some(self) -> None:
        """Drop the lower half of the counters, apart from those of projects that wait."""
        waiting = self.waiting
        names = sorted(self._counters, key=self._counters.__getitem__)
        for name in names[: MAX_PROJECTS // 2]:
            if name not in waiting:
                self._drop(name)

    def _forget_idle(self, until_s: float) -> None:
        """Drop counters that say nothing, of projects that have started nothing since then."""
        waiting = self.waiting
        for name, used_s in list(self._used_s.items()):
            if used_s < until_s and name not in waiting and self._counters[name] <= self._floor:
                self._drop(name)

    def _drop(self, name: str) -> None:
        if name in self._recent:
            self._leave_mean(name)
        del self._used_s[name], self._counters[name]
