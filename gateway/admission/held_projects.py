"""Projects whose interactive requests wait in this router, by the replica that they wait for."""

from collections import Counter
from collections.abc import Callable


class HeldProjects:
    """Counts the requests; `on_change` is called when other projects than before are held."""

    def __init__(self) -> None:
        self._held: Counter[tuple[str, str]] = Counter()
        """By replica and project."""
        self.on_change: Callable[[], None] | None = None

    def __len__(self) -> int:
        """How many pairs of a replica and a project there are."""
        return len(self._held)

    def add(self, replica: str, project: str) -> None:
        """Count a request that waits from now on."""
        self._held[replica, project] += 1
        if self._held[replica, project] == 1:
            self._notify()

    def remove(self, replica: str, project: str) -> None:
        """Stop counting a request."""
        self._held[replica, project] -= 1
        if not self._held[replica, project]:
            del self._held[replica, project]
            self._notify()

    def _notify(self) -> None:
        if self.on_change is not None:
            self.on_change()
