"""Projects whose interactive requests other routers hold for the replicas of one model.

Engines repeat to all routers what each of them holds, by project. What this router holds itself is
left out: it knows that better.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Set

NO_PROJECTS: frozenset[str] = frozenset()


class HeldElsewhere:
    """Projects held by other routers than `router`, by replica."""

    def __init__(self, router: str) -> None:
        self._router = router
        self._held: dict[str, dict[str, Mapping[str, int]]] = {}
        """By replica and router, without those that hold nothing."""
        self._projects: dict[str, Set[str]] = {}
        """By replica, without those for which nothing is held."""
        self._replicas: Counter[str] = Counter()
        """Number of replicas for which a project is held."""
        self.before_join: Callable[[str], None] | None = None
        """Called with each project that has been held for no replica, before it counts."""

    @property
    def all_projects(self) -> Set[str]:
        """Projects that are held for any replica."""
        return self._replicas.keys()

    def projects(self, replica: str) -> Set[str]:
        """Projects that are held for a replica."""
        return self._projects.get(replica, NO_PROJECTS)

    def record(
        self, replica: str, held: Mapping[str, Mapping[str, int]], *, is_snapshot: bool = False
    ) -> None:
        """Record what routers hold for a replica; a snapshot has all of them."""
        known = {} if is_snapshot else self._held.get(replica, {})
        merged = {**known, **held}
        self._held[replica] = {
            router: projects
            for router, projects in merged.items()
            if projects and router != self._router
        }
        self._count(replica, {p for projects in self._held[replica].values() for p in projects})

    def drop_replica(self, replica: str) -> None:
        """Forget a replica that has gone, or whose reports no longer come."""
        self._held.pop(replica, None)
        self._count(replica, NO_PROJECTS)

    def _count(self, replica: str, projects: Set[str]) -> None:
        known = self._projects.get(replica, NO_PROJECTS)
        if self.before_join is not None:
            for project in projects - self._replicas.keys():
                self.before_join(project)
        self._projects.pop(replica, None)
        for project in projects - known:
            self._replicas[project] += 1
        for project in known - projects:
            self._replicas[project] -= 1
            if not self._replicas[project]:
                del self._replicas[project]
        if projects:
            self._projects[replica] = projects
