"""Queue of the requests that wait for one replica: interactive before batch, each fairly."""

from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.admission.bypass_queue import BypassQueue, StartVerdict
from gateway.admission.drain_rate import DrainRate
from gateway.admission.project_queue import ProjectQueue, ProjectTurns
from gateway.admission.queue_item import QueueItem

Q = TypeVar("Q", bound=QueueItem)


class ReplicaQueue(Generic[Q]):
    """Requests that wait for one replica. `now` is in seconds.

    `interactive`, `batch`: decide between projects, for requests of each priority; without them,
    projects are not told apart.
    """

    def __init__(
        self,
        now: Callable[[], float],
        interactive: ProjectTurns | None = None,
        batch: ProjectTurns | None = None,
    ) -> None:
        self._interactive: BypassQueue[Q] = _queue(interactive)
        self._batch: BypassQueue[Q] = _queue(batch)
        self._rate = DrainRate(now)

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._interactive) + len(self._batch)

    def is_free(self, *, is_batch: bool) -> bool:
        """Whether no request waits that goes before a new one of this priority."""
        return not self._interactive and not (is_batch and self._batch)

    def add(self, item: Q) -> None:
        """Add a request."""
        if not self:
            self._rate.resume()
        self._of(is_batch=item.is_batch).add(item)

    def pop(self, check: Callable[[Q], StartVerdict]) -> Q | None:
        """Take out the request to start next: the first that may, where all before let it pass."""
        item = (self._interactive or self._batch).pop(check)
        if item is not None:
            self._rate.record_start()
            self._pause_if_empty()
        return item

    def remove(self, item: Q) -> None:
        """Take out a request that is not started."""
        self._of(is_batch=item.is_batch).remove(item)
        self._pause_if_empty()

    def wait_s(self, item: Q) -> float | None:
        """Predicted wait of a request from now on; None where there is no estimate."""
        per_s = self._rate.per_s
        if per_s is None:
            return None
        ahead = self._of(is_batch=item.is_batch).ahead(item)
        return (ahead + len(self._interactive) * item.is_batch) / per_s

    def drain_s(self, *, is_batch: bool) -> float | None:
        """Predicted time until all of that priority are started; None without an estimate; O(1)."""
        per_s = self._rate.per_s
        count = len(self) if is_batch else len(self._interactive)
        return None if per_s is None else count / per_s

    def _of(self, *, is_batch: bool) -> BypassQueue[Q]:
        return self._batch if is_batch else self._interactive

    def _pause_if_empty(self) -> None:
        if not self:
            self._rate.pause()


def _queue(turns: ProjectTurns | None) -> BypassQueue[Q]:
    return BypassQueue(ProjectQueue(turns) if turns else None)
