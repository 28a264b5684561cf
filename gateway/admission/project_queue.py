"""Queue of one priority for one replica: fair among projects, and then within each.

Projects take turns by counters that all routers share (`ProjectFairness`); within a project, and
among clients that nobody has verified, tenants do by a clock of the queue's own (`FairQueue`).
"""

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from gateway.admission.fair_queue import Backlog, FairQueue
from gateway.admission.queue_item import QueueItem

Q = TypeVar("Q", bound=QueueItem)


class ProjectTurns(Protocol):
    """Decides whose turn it is in one queue."""

    def next_project(self, heads: Mapping[str, QueueItem]) -> str:
        """Project whose turn it is; `heads`: the first request of each that waits."""

    def weight(self, project: str) -> float:
        """Weight of a project."""


class ProjectQueue(Generic[Q]):
    """Queues of projects that take turns."""

    def __init__(self, turns: ProjectTurns) -> None:
        self._turns = turns
        self._queues: dict[str, FairQueue[Q]] = {}
        self._turn: str | None = None
        """Project of the request that was first, when that was asked last; None: changed since."""
        self._length = 0
        self.tokens = 0.0

    def __len__(self) -> int:
        """How many requests wait."""
        return self._length

    @property
    def first(self) -> Q | None:
        """The request to serve next."""
        if not self._queues:
            return None
        self._turn = self._next()
        return self._queues[self._turn].first

    def add(self, item: Q) -> None:
        """Add a request."""
        queue = self._queues.get(item.project)
        if queue is None:
            queue = self._queues[item.project] = FairQueue()
        queue.add(item)
        self._count(1, item.tokens)

    def serve(self) -> Q:
        """Take out the first request, of a queue that has one.

        It is the one that `first` was last, though turns may have changed: it has been checked.
        """
        if not self._queues:
            raise LookupError("the queue is empty")
        project = self._next() if self._turn is None else self._turn
        item = self._queues[project].serve()
        self._remove(project, item)
        return item

    def remove(self, item: Q) -> None:
        """Take out a request, wherever it stands, at no cost."""
        self._queues[item.project].remove(item)
        self._remove(item.project, item)

    def ahead(self, item: Q) -> Backlog:
        """About what would be served before `item`, which need not be in the queue yet."""
        own = self._queues.get(item.project)
        requests, tokens = own.ahead(item) if own else Backlog(0, 0.0)
        virtual = (tokens + item.tokens) / item.weight
        for project, queue in self._queues.items():
            if queue is not own:
                each = queue.tokens / len(queue)
                before = min(len(queue), int(virtual * self._turns.weight(project) / each))
                requests, tokens = requests + before, tokens + before * each
        return Backlog(requests, tokens)

    def _next(self) -> str:
        """Project whose turn it is; there is one that waits."""
        if len(self._queues) == 1:
            return next(iter(self._queues))
        heads = {name: queue.first for name, queue in self._queues.items()}
        return self._turns.next_project({name: head for name, head in heads.items() if head})

    def _remove(self, project: str, item: Q) -> None:
        self._count(-1, -item.tokens)
        if not self._queues[project]:
            del self._queues[project]

    def _count(self, requests: int, tokens: float) -> None:
        self._turn = None
        self._length += requests
        self.tokens += tokens
