"""Queue of projects that take turns."""

import itertools
from collections.abc import Mapping

import pytest

from gateway.admission.project_queue import ProjectQueue
from gateway.admission.queue_item import QueueItem
from gateway.request.tenant import Tenant

numbers = itertools.count()


class LastName:
    """Gives the turn to the last project by name; `b` weighs three times as much."""

    is_reversed = False

    def next_project(self, heads: Mapping[str, QueueItem]) -> str:
        """The last one."""
        return min(heads) if self.is_reversed else max(heads)

    def weight(self, project: str) -> float:
        """Its weight."""
        return 3.0 if project == "b" else 1.0


def item(project: str, key: bytes = b"") -> QueueItem:
    """A request of a project."""
    return QueueItem(Tenant(project.encode(), key), 10.0, 0.0, next(numbers), project=project)


def test_turns_decide_between_projects_and_keys_share_within_one() -> None:
    """Each project's requests are in a fair queue of their own."""
    queue = ProjectQueue[QueueItem](LastName())
    keys = [item("b", b"1"), item("b", b"1"), item("b", b"2")]
    other = item("a")
    for each in (other, *keys):
        queue.add(each)
    assert queue.first is keys[0]
    assert [queue.serve() for _ in range(4)] == [keys[0], keys[2], keys[1], other]
    assert (len(queue), queue.tokens) == (0, 0.0)
    with pytest.raises(LookupError):
        queue.serve()


def test_the_request_that_was_first_is_served() -> None:
    """Though another project has the turn by then, unless the queue has changed."""
    turns = LastName()
    queue = ProjectQueue[QueueItem](turns)
    first, second, third = item("a"), item("b"), item("c")
    queue.add(first)
    queue.add(second)
    assert queue.first is second
    turns.is_reversed = True
    assert queue.serve() is second
    turns.is_reversed = False
    queue.add(second)
    assert queue.first is second
    queue.add(third)
    assert queue.serve() is third


def test_requests_ahead_are_counted_by_weight() -> None:
    """Of a project that weighs three times as much, three times as many come first."""
    queue = ProjectQueue[QueueItem](LastName())
    for _ in range(10):
        queue.add(item("b"))
    queue.add(item("a"))
    assert queue.ahead(item("a")).requests == 1 + 6


def test_a_request_can_be_removed() -> None:
    """A project with nothing left has no turn."""
    queue = ProjectQueue[QueueItem](LastName())
    first, second = item("a"), item("b")
    queue.add(first)
    queue.add(second)
    queue.remove(second)
    assert queue.serve() is first
